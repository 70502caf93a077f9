-- sketch_build_codebook, sketch_load_codebook, sketch_fuse.
\set VERBOSITY default
CREATE FUNCTION current_tag() RETURNS text LANGUAGE sql STABLE AS $$ SELECT lpad(to_hex(sketch_current_model()), 8, '0') $$;
-- 200 embeddings of 8 dimensions in four clusters of each half, tagged with the model.
CREATE TABLE cluster AS
SELECT n, (format('[%s]@%s', (SELECT string_agg(((CASE WHEN i <= 4 THEN n % 4 ELSE n / 4 % 4 END) + sin(n * i) / 100)::text, ',') FROM generate_series(1, 8) AS i),
                  current_tag()))::embedding AS embedding
FROM generate_series(1, 200) AS n;

SELECT sketch_build_codebook('cluster', 'cluster', subspaces => 2, prototypes => 4, weight => 0.25, unit_length => false) AS id \gset
SELECT sketch_current_codebook('cluster') = :id AS current;
-- A weight in double precision, as drivers send it, is the same weight.
SELECT sketch_build_codebook('cluster', 'cluster', subspaces => 2, prototypes => 4, weight => 0.25::double precision, unit_length => false) = :id AS same;
SELECT model_id = sketch_current_model() AS model, dimension, subspaces, prototypes, weight FROM sketch.codebook WHERE codebook_id = :id;
SELECT owner, name FROM sketch.codebook_name WHERE codebook_id = :id;
SELECT subspace, prototype, array_length(centroid, 1) AS width FROM sketch.prototype WHERE codebook_id = :id ORDER BY 1, 2;
-- k-means finds the four clusters.
SELECT subspace, array_agg(round(centroid[1]) ORDER BY centroid[1]) AS centres FROM sketch.prototype WHERE codebook_id = :id GROUP BY 1 ORDER BY 1;
-- The same table and seed give the same codebook.
SELECT sketch_build_codebook('cluster', 'cluster', subspaces => 2, prototypes => 4, weight => 0.25, unit_length => false) = :id AS same;

-- F(x) = w x + (1 - w) p(x), and the identity of distances that follows from it.
CREATE TEMP TABLE fused AS
SELECT n, embedding AS x, sketch_fuse(embedding, 'cluster') AS f,
       (SELECT array_agg(value ORDER BY subspace, i)::real[]::embedding FROM
           (SELECT DISTINCT ON (subspace) subspace, centroid FROM sketch.prototype WHERE codebook_id = :id
            ORDER BY subspace, (centroid[1] - (embedding::real[])[subspace * 4 + 1]) ^ 2) AS p,
           unnest(centroid) WITH ORDINALITY AS v (value, i)) AS p
FROM cluster;
SELECT count(*) FILTER (WHERE sketch_codebook_id(f) = :id) AS tagged,
       count(*) FILTER (WHERE abs((x <-> f) - 0.75 * (x <-> p)) < 0.005) AS between,
       max(abs((q <-> f) ^ 2 - (0.25 * (q <-> x) ^ 2 + 0.75 * (q <-> p) ^ 2 - 0.1875 * (x <-> p) ^ 2))) < 0.05 AS identity
FROM fused, (SELECT '[1,0,2,0,3,0,1,0]'::embedding AS q) AS query;

-- There and back as JSON: the trainer's format.
SELECT sketch_load_codebook('copy', jsonb_set(sketch_train_codebook('cluster', 'embedding', 2, 4, 0.5, true, 100), '{weight}', '0.5')) <> :id AS loaded;
SELECT weight FROM sketch.codebook WHERE codebook_id = sketch_current_codebook('copy');
-- What is exported is loaded as the same codebook, under any name.
SELECT sketch_load_codebook('exported', sketch_export_codebook('copy')) = sketch_current_codebook('copy') AS same;
SELECT sketch_export_codebook('nonesuch');

-- Unless told otherwise, a further channel makes a fused embedding at least as long as the photo's own.
SELECT bool_and(sketch_dimension(sketch_fuse(embedding, 'copy')) = 9) AS channel,
       bool_and((sketch_fuse(embedding, 'copy') <-> '[0,0,0,0,0,0,0,0]') > (embedding <-> '[0,0,0,0,0,0,0,0]') - 0.01) AS completed FROM cluster;

-- NULL.
SELECT sketch_fuse(NULL, 'cluster'), sketch_fuse('[1]', NULL), sketch_load_codebook('x', NULL), sketch_current_codebook(NULL);
SELECT sketch_build_codebook(NULL, 'cluster');

-- What is refused.
\set VERBOSITY terse
SELECT sketch_fuse(embedding, 'nonesuch') FROM cluster LIMIT 1;
\set VERBOSITY default
SELECT sketch_fuse('[1,2,3,4,5,6,7,8]', 'cluster');
SELECT sketch_fuse(sketch_fuse(embedding, 'cluster'), 'cluster') FROM cluster LIMIT 1;
SELECT sketch_fuse(('[1,2]@' || current_tag())::embedding, 'cluster');
SELECT sketch_build_codebook('x', 'cluster', prototypes => 1000);
SELECT sketch_build_codebook('x', 'cluster', prototypes => 0);
SELECT sketch_build_codebook('x', 'cluster', subspaces => 3);
SELECT sketch_build_codebook('x', 'cluster', weight => 1.5);
SELECT sketch_build_codebook('x', 'cluster', sample => -1);
SELECT sketch_build_codebook('x', 'cluster', 'nonesuch');
SELECT sketch_build_codebook('x', 'cluster', 'cluster');
SELECT sketch_build_codebook('x', 0);
SELECT sketch_build_codebook('', 'cluster');
SELECT sketch_load_codebook('x', '{}');
SELECT sketch_load_codebook('x', '[]');
CREATE TEMP TABLE untagged AS SELECT '[1,2]'::embedding AS embedding FROM generate_series(1, 10);
SELECT sketch_build_codebook('x', 'untagged', prototypes => 2);
CREATE TEMP TABLE mixed AS SELECT embedding FROM cluster UNION ALL SELECT '[1,2,3,4,5,6,7,8]@00000001';
SELECT sketch_build_codebook('x', 'mixed', prototypes => 2);
CREATE TEMP TABLE already AS SELECT sketch_fuse(embedding, 'cluster') AS embedding FROM cluster;
SELECT sketch_build_codebook('x', 'already', prototypes => 2);
CREATE TEMP TABLE nothing (embedding embedding);
SELECT sketch_build_codebook('x', 'nothing');

-- A sample takes no more than maintenance_work_mem.
CREATE TEMP TABLE large AS SELECT ARRAY[sin(n), cos(n), sin(n / 3), cos(n / 3)]::real[]::embedding AS embedding FROM generate_series(1, 40000) AS n;
SET maintenance_work_mem = '1MB';
SELECT jsonb_typeof(sketch_train_codebook('large', 'embedding', 2, 2, 0.2, true, 40000)) AS trained;
SELECT jsonb_typeof(sketch_train_codebook('large', 'embedding', 2, 2, 0.2, true, 30000)) AS trained;
RESET maintenance_work_mem;

-- A newer codebook is used by the next command, in a loop too.
DO $$
DECLARE
    seen bigint[] := '{}';
    drawn embedding := (SELECT embedding FROM cluster LIMIT 1);
BEGIN
    FOR prototypes IN 7 .. 9 LOOP
        PERFORM sketch_build_codebook('cluster', 'cluster', prototypes => prototypes);
        seen := seen || sketch_codebook_id(sketch_fuse(drawn, 'cluster'));
    END LOOP;
    RAISE NOTICE '% codebooks were used', (SELECT count(DISTINCT id) FROM unnest(seen) AS id);
END $$;

-- An older codebook that is loaded again is in use again.
SELECT sketch_build_codebook('cluster', 'cluster', prototypes => 7) = sketch_current_codebook('cluster') AS current;

-- Rows that someone changed are noticed when a connection reads them.
\c
UPDATE sketch.prototype SET centroid[1] = 9 WHERE codebook_id = sketch_current_codebook('copy');
\set VERBOSITY terse
SELECT sketch_fuse(embedding, 'copy') FROM cluster LIMIT 1;
\set VERBOSITY default

-- A user without rights on the tables builds his own.
CREATE ROLE sketch_builder;
GRANT SELECT ON cluster TO sketch_builder;
SET ROLE sketch_builder;
SELECT sketch_build_codebook('his', 'cluster', prototypes => 5) > 0 AS built;
SELECT sketch_dimension(sketch_fuse(embedding, 'his')) FROM cluster LIMIT 1;
UPDATE sketch.codebook SET weight = 1;
-- A name is each role's own: another's is neither taken nor changed.
SELECT sketch_current_codebook('cluster') AS his, sketch_current_codebook('cluster', 'postgres') IS NOT NULL AS other;
SELECT sketch_build_codebook('cluster', 'cluster', prototypes => 6) = sketch_current_codebook('cluster') AS built;
SELECT sketch_build_codebook('cluster', 'cluster', prototypes => 6, owner => 'postgres');
SELECT sketch_build_codebook('cluster', 'cluster', prototypes => 6, owner => 'nonesuch');
\set VERBOSITY terse
SELECT sketch_fuse(embedding, 'his', 'postgres') IS NULL FROM cluster WHERE n = 1;
\set VERBOSITY default
-- Nor do the rights of who calls a function of his.
CREATE FUNCTION pg_temp.borrow() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS
    $$ SELECT sketch_build_codebook('cluster', 'cluster', prototypes => 6, owner => 'postgres') $$;
RESET ROLE;
\set VERBOSITY terse
SELECT pg_temp.borrow();
\set VERBOSITY default
SELECT sketch_current_codebook('cluster') <> sketch_current_codebook('cluster', 'sketch_builder') AS apart;
-- Two roles may load the same codebook, and a member one for a group.
SELECT sketch_build_codebook('mine', 'cluster', prototypes => 6) = sketch_current_codebook('cluster', 'sketch_builder') AS same;
CREATE ROLE sketch_group ROLE sketch_builder;
SET ROLE sketch_builder;
SELECT sketch_build_codebook('his', 'cluster', prototypes => 6, owner => 'sketch_group') = sketch_current_codebook('his', 'sketch_group') AS built;
RESET ROLE;
SELECT owner, name, count(*) FROM sketch.codebook_name GROUP BY owner, name ORDER BY owner, name;
DELETE FROM sketch.codebook;
SELECT count(*) AS names_left FROM sketch.codebook_name;
SELECT count(*) AS prototypes_left FROM sketch.prototype;
DROP TABLE cluster;
DROP FUNCTION current_tag, pg_temp.borrow;
DROP ROLE sketch_builder, sketch_group;

-- A view that has no rows when they are counted, or more than were counted, is sampled all the same.
CREATE SEQUENCE visits;
CREATE VIEW later AS SELECT format('[%s,1]@00000001', n)::embedding AS e FROM generate_series(1, 100) AS n WHERE nextval('visits') > 100;
SELECT jsonb_array_length(sketch_train_codebook('later', 'e', 1, 1, 0.2, true, 1000) -> 'centroids') > 0 AS trained;
CREATE VIEW growing AS SELECT format('[%s,1]@00000001', n)::embedding AS e FROM generate_series(1, 100) AS n WHERE abs(nextval('visits') - 51) > 49;
SELECT setval('visits', 1, false) \g /dev/null
SELECT sketch_train_codebook('growing', 'e', 1, 2, 0.2, true, 1000);
DROP VIEW later, growing;
DROP SEQUENCE visits;
