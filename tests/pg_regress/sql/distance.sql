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
        -- PostgreSQL 17 writes the result of a query of its own in another way, 18 says that a scan is disabled.
        CONTINUE WHEN line ~ 'Disabled: true';
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
RESET plan_cache_mode;

-- Cosine distance and negative inner product.
SELECT '[1,0]'::embedding <=> '[0,2]' AS right_angle, '[1,2]'::embedding <=> '[2,4]' AS parallel, '[1,2]'::embedding <=> '[-1,-2]' AS opposite,
       '[0,0]'::embedding <=> '[1,2]' AS of_zero, '[1,2]'::embedding <#> '[3,4]' AS product;
SELECT '[1]'::embedding <=> NULL AS null_right, NULL <#> '[0]'::embedding AS null_left;
SELECT bool_and(abs((a.e <=> b.e) - (1 - dot / sqrt(aa * bb))) < 1e-6) AS cosine, bool_and(abs((a.e <#> b.e) + dot) < 1e-6) AS product,
       bool_and(a.e <=> b.e = b.e <=> a.e AND a.e <#> b.e = b.e <#> a.e) AS symmetric
FROM point AS a, point AS b, LATERAL (SELECT sum(x * y) AS dot, sum(x * x) AS aa, sum(y * y) AS bb FROM unnest(a.e::real[], b.e::real[]) AS v (x, y)) AS s;
\set VERBOSITY terse
SELECT '[1]@0000000a'::embedding <=> '[2]@0000000b' AS models, '[1]@0000000a/000000fe'::embedding <#> '[2]@0000000a/000000ff' AS codebooks, '[1,2]'::embedding <=> '[1]' AS dimensions;
\set VERBOSITY default
-- The index is not offered for an order that it does not have: of unlike lengths, the three differ.
CREATE TABLE unlike AS SELECT n, format('[%s,%s]', n * cos(n / 9.0), n * sin(n / 9.0))::embedding AS e FROM generate_series(1, 100) AS n;
CREATE INDEX ON unlike USING ivfexact (e);
SET enable_seqscan = off;
EXPLAIN (COSTS off) SELECT n FROM unlike ORDER BY e <-> '[1,1]' LIMIT 3;
SELECT pg_temp.plan($$SELECT n FROM unlike ORDER BY e <=> '[1,1]' LIMIT 3$$);
SELECT pg_temp.plan($$SELECT n FROM unlike ORDER BY e <#> '[1,1]' LIMIT 3$$);
SELECT (SELECT n FROM unlike ORDER BY e <-> '[1,1]' LIMIT 1) AS l2, (SELECT n FROM unlike ORDER BY e <=> '[1,1]', n LIMIT 1) AS cosine,
       (SELECT n FROM unlike ORDER BY e <#> '[1,1]' LIMIT 1) AS product;
-- It is for "more like this", and for the mean of two queries, which are both computed once.
CREATE FUNCTION uses_index(query text) RETURNS bool LANGUAGE plpgsql AS $$
DECLARE
    line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN ' || query LOOP
        IF line LIKE '%Index Scan using unlike_e_idx%' THEN RETURN true; END IF;
    END LOOP;
    RETURN false;
END $$;
\set query 'SELECT n FROM unlike ORDER BY e <-> (SELECT e FROM unlike WHERE n = 50) LIMIT 3'
SELECT uses_index(:'query');
:query;
\set query 'SELECT n FROM unlike ORDER BY e <-> (SELECT avg(q) FROM (VALUES (''[0,0]''::embedding), ((SELECT e FROM unlike WHERE n = 50))) AS v (q)) LIMIT 1'
SELECT uses_index(:'query');
:query;
DROP FUNCTION uses_index;
DROP TABLE unlike;
RESET enable_seqscan;

-- The mean: tags stay if they are all the same, and what does not compare is refused.
SELECT avg(e) AS mean FROM (VALUES ('[1,2]'::embedding), (NULL), ('[3,-2]')) AS v (e);
SELECT avg(e) AS none FROM (VALUES (NULL::embedding)) AS v (e);
SELECT avg(e) FROM (VALUES ('[1]@0000000a'::embedding), ('[2]'), ('[3]@0000000a/000000ff')) AS v (e);
SELECT avg(e) FROM (VALUES ('[65504]'::embedding), ('[65504]')) AS v (e);
SELECT avg(e) FROM (VALUES ('[1]@0000000a'::embedding), ('[2]@0000000b')) AS v (e);
SELECT avg(e) FROM (VALUES ('[1]@0000000a/000000fe'::embedding), ('[1]@0000000a'), ('[2]@0000000a/000000ff')) AS v (e);
SELECT avg(e) FROM (VALUES ('[1]'::embedding), ('[2,3]')) AS v (e);
SELECT sketch_avg('{1,2}');
SELECT sketch_avg(ARRAY[1, 0, 0, NULL]);
SELECT sketch_avg(ARRAY[0, 0, 0, 1]);
SELECT sketch_avg_combine(ARRAY[1, 0.5, 0], ARRAY[0, 0, 0]);
-- Workers of a parallel query agree with one process.
CREATE TABLE spread AS SELECT n % 3 AS kind, ARRAY[n, n * 2]::real[]::embedding AS e FROM generate_series(1, 999) AS n;
SELECT avg(e) AS alone FROM spread \gset
SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
EXPLAIN (COSTS off) SELECT avg(e) FROM spread;
SELECT avg(e) AS mean, avg(e)::text = :'alone' AS same FROM spread;
SELECT kind, avg(e) FROM spread GROUP BY kind ORDER BY kind;
RESET parallel_setup_cost; RESET parallel_tuple_cost; RESET min_parallel_table_scan_size;
DROP TABLE spread;
