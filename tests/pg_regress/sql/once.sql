-- The same drawing goes through the network once, however many rows are compared.
\set VERBOSITY default
CREATE TABLE many AS SELECT n, ARRAY[n]::real[] || array_fill(0::real, ARRAY[511]) AS v FROM generate_series(1, 1000) AS n;
ALTER TABLE many ADD e embedding;
UPDATE many SET e = v::embedding;
CREATE FUNCTION counter(what text) RETURNS bigint LANGUAGE sql AS 'SELECT value::bigint FROM sketch_status() WHERE name = what';

-- A constant.
SELECT counter('sketches_embedded') AS before \gset
SELECT count(*) FROM many WHERE sketch_distance(e, '[[[0,99,50],[0,30,80]]]'::bytea) > 0;
SELECT counter('sketches_embedded') - :before AS embedded;

-- A parameter, in plans of both kinds.
PREPARE nearest(bytea) AS SELECT n FROM many ORDER BY sketch_distance(e, $1) LIMIT 1;
SET plan_cache_mode = force_generic_plan;
SELECT counter('sketches_embedded') AS before \gset
EXECUTE nearest('[[[0,99,50],[0,30,81]]]');
SELECT counter('sketches_embedded') - :before AS embedded;
SET plan_cache_mode = force_custom_plan;
EXECUTE nearest('[[[0,99,50],[0,30,81]]]');
SELECT counter('sketches_embedded') - :before AS embedded;
RESET plan_cache_mode;

-- A column of another table.
CREATE TABLE query AS SELECT convert_to(format('[[[0,99,50],[0,30,%s]]]', 90 + n), 'UTF8') AS drawing FROM generate_series(1, 3) AS n;
SELECT counter('sketches_embedded') AS before \gset
SELECT count(*) FROM query, LATERAL (SELECT n FROM many ORDER BY sketch_distance(e, drawing) LIMIT 1) AS best;
SELECT counter('sketches_embedded') - :before AS embedded;

-- PL/pgSQL evaluates one expression with many values: each drawing keeps its own embedding.
DO $$
DECLARE
    seen text[] := '{}';
    drawing bytea;
BEGIN
    FOR drawing IN SELECT q.drawing FROM query AS q LOOP
        seen := seen || sketch_embed(drawing)::text;
    END LOOP;
    RAISE NOTICE '% drawings, % embeddings', cardinality(seen), (SELECT count(DISTINCT s) FROM unnest(seen) AS s);
END $$;
-- But not under another model.
DO $$
DECLARE
    seen embedding;
BEGIN
    FOR i IN 1 .. 2 LOOP
        PERFORM set_config('pg_sketch.model', (ARRAY['', 'nonesuch'])[i], true);
        seen := sketch_embed('[[[0,99,50],[0,30,80]]]'::bytea);
    END LOOP;
END $$;
DROP TABLE many, query;
DROP FUNCTION counter;
