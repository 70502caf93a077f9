-- Ranks every photo by every drawing, and prints mAP@all and P@25. See eval.sh.
\set QUIET on
\pset footer off
SET max_parallel_workers_per_gather = 0;  -- random() in one order, so that figures repeat
SET work_mem = '256MB';

SELECT sketch_enable('photo', 'image', embed => false) \g /dev/null
CALL sketch_embed_photos('photo');
SELECT sketch_build_codebook('photo', 'photo' :codebook) \g /dev/null
SELECT sketch_fuse_photos('photo') \g /dev/null

CREATE TABLE query (id bigint GENERATED ALWAYS AS IDENTITY, set text, label text, embedding embedding);
INSERT INTO query (set, label, embedding) SELECT 'val', label, sketch_embed(image) FROM sketch ORDER BY label, name;
INSERT INTO query (set, label, embedding)
SELECT 'val-doodle', label, sketch_embed(line -> 'drawing') FROM doodle ORDER BY label, line ->> 'key_id';

\pset title 'gallery and codebook'
SELECT (SELECT count(*) FROM photo) AS photos, (SELECT count(DISTINCT label) FROM photo) AS classes,
       subspaces, prototypes, weight
FROM sketch.codebook WHERE codebook_id = sketch_current_codebook('photo');

-- Ties are broken at random.
SELECT setseed(0.5) \g /dev/null
CREATE TABLE ranking AS
SELECT set, ranked_by, query.id, query.label, photo.label = query.label AS relevant,
       row_number() OVER (PARTITION BY ranked_by, query.id ORDER BY distance, random()) AS rank
FROM query CROSS JOIN photo
CROSS JOIN LATERAL (VALUES ('embedding', sketch_distance(photo.embedding, query.embedding)),
                           ('fused', sketch_distance(photo.fused, query.embedding))) AS method (ranked_by, distance);

-- Average precision of a query: mean over its relevant photos of (relevant photos up to this one) / rank.
CREATE TABLE class_quality AS
WITH hit AS (
    SELECT set, ranked_by, id, label, rank, row_number() OVER (PARTITION BY ranked_by, id ORDER BY rank) AS hits
    FROM ranking WHERE relevant
), query_quality AS (
    SELECT set, ranked_by, label, avg(hits::float8 / rank) AS ap, count(*) FILTER (WHERE rank <= 25) / 25.0 AS p25
    FROM hit GROUP BY set, ranked_by, id, label
)
SELECT set, ranked_by, label, count(*) AS queries, avg(ap) AS ap, avg(p25) AS p25
FROM query_quality GROUP BY set, ranked_by, label;

\pset title 'mean over classes, in percent; interval: 95 % of 2000 draws of as many classes, with replacement'
WITH summary AS (
    SELECT set, ranked_by, count(*) AS classes, sum(queries) AS queries, avg(ap) AS map, avg(p25) AS p25,
           array_agg(ap ORDER BY label) AS aps
    FROM class_quality GROUP BY set, ranked_by
), draw AS (
    SELECT set, ranked_by, avg(aps[1 + floor(random() * classes)::int]) AS map
    FROM summary CROSS JOIN generate_series(1, 2000) AS draw CROSS JOIN LATERAL generate_series(1, classes)
    GROUP BY set, ranked_by, draw
), spread AS (
    SELECT set, ranked_by, percentile_cont(ARRAY[0.025, 0.975]) WITHIN GROUP (ORDER BY map) AS bounds
    FROM draw GROUP BY set, ranked_by
)
SELECT set, ranked_by, classes, queries, round(100 * map::numeric, 1) AS "mAP@all",
       format('%s to %s', round(100 * bounds[1]::numeric, 1), round(100 * bounds[2]::numeric, 1)) AS interval,
       round(100 * p25, 1) AS "P@25"
FROM summary JOIN spread USING (set, ranked_by) ORDER BY set, ranked_by;
