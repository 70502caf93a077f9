-- Ranks all photos by every drawing and prints mAP@all, P@25, and found@10, the share of drawings with a photo of their class
-- among the first ten. See eval.sh.
\set QUIET on
\pset footer off
SET max_parallel_workers_per_gather = 0;  -- random() is called in a fixed order, so that figures repeat
SET work_mem = '512MB';
SET client_min_messages = warning;

SELECT sketch_enable('photo', 'image', embed => false) \g /dev/null
CALL sketch_embed_photos('photo');

CREATE TABLE query (id bigint GENERATED ALWAYS AS IDENTITY, set text, label text, embedding embedding);
INSERT INTO query (set, label, embedding) SELECT 'val', label, sketch_embed(image) FROM sketch ORDER BY label, name;
INSERT INTO query (set, label, embedding)
SELECT 'val-doodle', label, sketch_embed(line -> 'drawing') FROM doodle ORDER BY label, line ->> 'key_id';

-- The result of k-means depends on the order of the photos, by some points of mAP: take the mean over several orders.
SELECT setseed(0.5) \g /dev/null
CREATE TABLE candidate (ranked_by text, run integer, photo_id bigint, label text, embedding embedding);
INSERT INTO candidate SELECT 'embedding', 1, id, label, embedding FROM photo ORDER BY id;
SELECT format(statement, 'order_' || run, :'codebook', run)
FROM generate_series(1, :runs) AS run,
     unnest(ARRAY['CREATE TABLE %1$I AS SELECT embedding FROM photo ORDER BY random()',
                  'SELECT sketch_build_codebook(%1$L, %1$L %2$s)',
                  $$INSERT INTO candidate SELECT 'fused', %3$s, id, label, sketch_fuse(embedding, %1$L) FROM photo ORDER BY id$$])
         WITH ORDINALITY AS step (statement, number)
ORDER BY run, number
\o /dev/null
\gexec
\o

\pset title 'gallery and codebook'
SELECT (SELECT count(*) FROM photo) AS photos, (SELECT count(DISTINCT label) FROM photo) AS classes,
       :runs AS codebooks, subspaces, prototypes, weight, unit_length
FROM sketch.codebook WHERE codebook_id = sketch_current_codebook('order_1');

-- Ties are broken at random.
CREATE TABLE ranking AS
SELECT set, ranked_by, run, query.id, query.label, candidate.label = query.label AS relevant,
       row_number() OVER (PARTITION BY ranked_by, run, query.id
                          ORDER BY sketch_distance(candidate.embedding, query.embedding), random()) AS rank
FROM query CROSS JOIN candidate;

-- Average precision of a query: mean over its relevant photos of (relevant photos up to this one) / rank.
CREATE TABLE class_quality AS
WITH hit AS (
    SELECT set, ranked_by, run, id, label, rank, row_number() OVER (PARTITION BY ranked_by, run, id ORDER BY rank) AS hits
    FROM ranking WHERE relevant
), query_quality AS (
    SELECT set, ranked_by, run, id, label, avg(hits::float8 / rank) AS ap,
           count(*) FILTER (WHERE rank <= 25) / 25.0 AS p25, (min(rank) <= 10)::integer AS found
    FROM hit GROUP BY set, ranked_by, run, id, label
)
SELECT set, ranked_by, label, count(DISTINCT id) AS queries, avg(ap) AS ap, avg(p25) AS p25, avg(found) AS found
FROM query_quality GROUP BY set, ranked_by, label;

\pset title 'mean over classes, in percent; interval: 95 % of 2000 draws of as many classes, with replacement'
WITH summary AS (
    SELECT set, ranked_by, count(*) AS classes, sum(queries) AS queries, avg(ap) AS map, avg(p25) AS p25, avg(found) AS found,
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
       round(100 * p25, 1) AS "P@25", round(100 * found, 1) AS "found@10"
FROM summary JOIN spread USING (set, ranked_by) ORDER BY set, ranked_by;
