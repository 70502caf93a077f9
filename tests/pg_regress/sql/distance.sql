-- The operator, and all forms of sketch_distance.
\set VERBOSITY default
SELECT '[1,2,3]'::embedding <-> '[1,2,3]' AS same, '[0,0]'::embedding <-> '[3,4]' AS five;
SELECT sketch_distance('[0,0]'::embedding, '[3,4]'::embedding) AS five;
SELECT '[0]'::embedding <-> NULL AS null_right, NULL <-> '[0]'::embedding AS null_left;
SELECT sketch_distance(NULL::embedding, '[0]'::embedding) AS null_left, sketch_distance('[0]', NULL::bytea) AS null_drawing;

-- A distance is symmetric, zero to itself alone, and keeps the triangle inequality.
CREATE TEMP TABLE point AS
SELECT n, ARRAY[sin(n), cos(n * 2), sin(n * 3), cos(n * 5), sin(n * 7)]::real[]::embedding AS e FROM generate_series(1, 20) AS n;
SELECT bool_and(a.e <-> b.e = b.e <-> a.e) AS symmetric, bool_and((a.e <-> b.e = 0) = (a.n = b.n)) AS zero_to_itself,
       bool_and(a.e <-> c.e <= (a.e <-> b.e) + (b.e <-> c.e) + 1e-6) AS triangle
FROM point AS a, point AS b, point AS c;

-- It is what arithmetic says.
SELECT bool_and(abs((a.e <-> b.e) - sqrt(s.sum)) < 1e-6) AS arithmetic
FROM point AS a, point AS b, LATERAL (SELECT sum((x - y) ^ 2) FROM unnest(a.e::real[], b.e::real[]) AS v (x, y)) AS s;

-- Tags: unknown ones fit all, others only themselves; a query that is not fused fits every fused photo.
SELECT '[1]'::embedding <-> '[2]@0000000a' AS unknown_model, '[1]@0000000a' <-> '[2]@0000000a/000000ff'::embedding AS one_fused,
       '[1]@0000000a/000000ff'::embedding <-> '[2]@0000000a/000000ff' AS both_fused;
SELECT '[1]@0000000a'::embedding <-> '[2]@0000000b';
SELECT '[1]@0000000a/000000fe'::embedding <-> '[2]@0000000a/000000ff';
SELECT '[1,2]'::embedding <-> '[1]';

-- All forms become the operator, so that an index can serve them; a drawing is embedded before the first row.
CREATE FUNCTION pg_temp.plan(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (VERBOSE, COSTS off) ' || query LOOP
        -- PostgreSQL 17 writes the result of a query of its own in another way.
        RETURN NEXT regexp_replace(replace(line, ' (returns $0)', ''), '\$0|\(InitPlan 1\)\.col1', 'result', 'g');
    END LOOP;
END
$$;
SELECT pg_temp.plan($$SELECT n FROM point ORDER BY sketch_distance(e, '[1,2,3,4,5]'::embedding) LIMIT 3$$);
SELECT pg_temp.plan($$SELECT n FROM point ORDER BY sketch_distance(e, '[[[1,2],[3,4]]]'::jsonb) LIMIT 3$$);
PREPARE by_drawing(bytea) AS SELECT n FROM point ORDER BY sketch_distance(e, $1) LIMIT 3;
SET plan_cache_mode = force_generic_plan;
SELECT pg_temp.plan($$EXECUTE by_drawing('\x00')$$);
-- Not if a row changes it, or a call may give another result each time.
SELECT pg_temp.plan($$SELECT sketch_embed(n::text) FROM point$$);
SELECT pg_temp.plan($$SELECT sketch_embed(random()::text) FROM point$$);
SELECT pg_temp.plan($$SELECT sketch_embed('[[[1,2],[3,4]]]'::jsonb)$$);
