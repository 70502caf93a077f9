-- The access method ivfexact: whatever happens to table and index, its answers are those of a sequential scan.
\set VERBOSITY default
SET client_min_messages = warning;

-- Embeddings of 16 dimensions around 20 centres, from a number.
CREATE FUNCTION spot(n bigint, spread float8 DEFAULT 0.2, origin text DEFAULT '') RETURNS embedding LANGUAGE sql IMMUTABLE AS $$
    SELECT ('[' || string_agg((sin(n % 20 * i * 1.7) + spread * sin(n * i * 0.37))::real::text, ',' ORDER BY i) || ']' || origin)::public.embedding
    FROM generate_series(1, 16) AS i
$$;

-- Whether an ordered scan by an index gives the distances, in order, that a sequential scan gives, and the same rows but
-- for ties at the limit.
CREATE FUNCTION exact(photos regclass, query embedding, few bigint DEFAULT 10, condition text DEFAULT 'true') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    ordered text := format('SELECT id, e <-> %L::embedding AS d FROM %s WHERE %s ORDER BY e <-> %L::embedding LIMIT %L', query, photos, condition, query, few);
    answer text := format('SELECT count(*), array_agg(d), array_agg(id ORDER BY d, id) FILTER (WHERE d < m) FROM (SELECT *, max(d) OVER () AS m FROM (%s) AS o) AS a', ordered);
    line text;
    scanned boolean := false;
    by_index record;
    by_scan record;
BEGIN
    PERFORM set_config('enable_seqscan', 'off', true), set_config('enable_sort', 'off', true);
    FOR line IN EXECUTE 'EXPLAIN (COSTS off) ' || ordered LOOP
        scanned := scanned OR line ~ 'Index Scan using';
    END LOOP;
    EXECUTE answer INTO by_index;
    PERFORM set_config('enable_seqscan', 'on', true), set_config('enable_sort', 'on', true), set_config('enable_indexscan', 'off', true);
    EXECUTE answer INTO by_scan;
    PERFORM set_config('enable_indexscan', 'on', true);
    RETURN CASE WHEN NOT scanned THEN 'no index scan' WHEN by_index IS DISTINCT FROM by_scan THEN format('%s differs from %s', by_index, by_scan) ELSE format('%s exact', by_index.count) END;
END
$$;
-- The same for many queries, near and far.
CREATE FUNCTION exact_all(photos regclass, few bigint DEFAULT 10, condition text DEFAULT 'true') RETURNS TABLE (answers bigint, result text) LANGUAGE sql AS $$
    SELECT count(*), exact(photos, spot(q, 0.3), few, condition) FROM generate_series(7, 400, 13) AS q GROUP BY 2 ORDER BY 2
$$;

-- The nodes of a plan; the rest is of other forms in other majors.
CREATE FUNCTION plan(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS off) ' || query LOOP
        IF line ~ '(Scan|Sort$|Limit|Append|Loop|Aggregate)' THEN RETURN NEXT line; END IF;
    END LOOP;
END
$$;

CREATE TABLE photo (id bigint PRIMARY KEY, e embedding, label text);
INSERT INTO photo SELECT n, spot(n), n % 100 FROM generate_series(1, 3000) AS n;
INSERT INTO photo SELECT n, NULL, 'none' FROM generate_series(3001, 3050) AS n;
CREATE INDEX photo_e ON photo USING ivfexact (e);
ANALYZE photo;
SELECT * FROM exact_all('photo');
SELECT * FROM exact_all('photo', 1);
SELECT * FROM exact_all('photo', 1000);
SELECT * FROM exact_all('photo', 3000);
SELECT lists > 1 AS lists, rows, visible, free, unused_pages FROM sketch_check_index('photo_e');
SELECT reltuples, relpages > 1 AS pages FROM pg_class WHERE relname = 'photo_e';

-- A planner that is left alone takes it for few of many rows, not for all of them, nor for a small table.
CREATE TABLE large (id bigint, e embedding);
INSERT INTO large SELECT n, spot(n % 3000) FROM generate_series(1, 40000) AS n;
CREATE INDEX large_e ON large USING ivfexact (e);
ANALYZE large;
SELECT plan($$SELECT id FROM large ORDER BY e <-> spot(3) LIMIT 10$$);
SELECT plan($$SELECT id FROM large ORDER BY e <-> spot(3)$$);
SELECT plan($$SELECT count(*) FROM large$$);
CREATE TABLE small (id bigint, e embedding);
INSERT INTO small SELECT n, spot(n) FROM generate_series(1, 20) AS n;
CREATE INDEX small_e ON small USING ivfexact (e);
ANALYZE small;
SELECT plan($$SELECT id FROM small ORDER BY e <-> spot(3) LIMIT 5$$);
-- Without an order it is of no use, whatever is forbidden.
SET enable_seqscan = off;
SELECT plan($$SELECT id FROM small$$);
SELECT count(*) FROM small;
RESET enable_seqscan;
-- 13 or 14 rows of each place: distances are equal many times over.
SELECT * FROM exact_all('large', 100);
DROP TABLE large;

-- Both forms of sketch_distance, either side, and what an expression index would need.
SET enable_seqscan = off;
EXPLAIN (COSTS off) SELECT id FROM photo ORDER BY sketch_distance(e, '[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]'::embedding) LIMIT 3;
PREPARE by_drawing(bytea) AS SELECT id FROM photo ORDER BY sketch_distance(e, $1) LIMIT 3;
SET plan_cache_mode = force_generic_plan;
SELECT plan($$EXECUTE by_drawing('\x00')$$);
SELECT plan($$SELECT id FROM photo ORDER BY spot(3) <-> e LIMIT 3$$);
-- Prepared, with a generic plan.
PREPARE nearest(embedding, int) AS SELECT id, e <-> $1 AS d FROM photo ORDER BY e <-> $1 LIMIT $2;
EXPLAIN (COSTS off) EXECUTE nearest(spot(3), 3);
EXECUTE nearest(spot(3), 1);
EXECUTE nearest(spot(444), 1);
RESET plan_cache_mode;

-- WHERE, of many rows, few, one, and none.
SELECT * FROM exact_all('photo', 10, 'id % 2 = 0');
SELECT * FROM exact_all('photo', 10, 'label = ''7''');
SELECT * FROM exact_all('photo', 10, 'id + 0 = 2999');
SELECT * FROM exact_all('photo', 10, 'id < 0');
SELECT * FROM exact_all('photo', 10, 'e <-> spot(3) > 1');

-- LATERAL: a scan that is started anew for each outer row.
SET enable_seqscan = off;
CREATE TEMP TABLE query AS SELECT q, spot(q, 0.3) AS e FROM generate_series(1, 200, 9) AS q;
SELECT plan($$SELECT q, n.id FROM query, LATERAL (SELECT id FROM photo ORDER BY photo.e <-> query.e LIMIT 3) AS n$$);
CREATE TEMP TABLE by_index AS SELECT q, n.* FROM query, LATERAL (SELECT id, photo.e <-> query.e AS d FROM photo ORDER BY photo.e <-> query.e LIMIT 3) AS n;
SET enable_indexscan = off;
CREATE TEMP TABLE by_scan AS SELECT q, n.* FROM query, LATERAL (SELECT id, photo.e <-> query.e AS d FROM photo ORDER BY photo.e <-> query.e LIMIT 3) AS n;
RESET enable_indexscan;
SELECT count(*), (SELECT count(*) FROM (TABLE by_index EXCEPT TABLE by_scan) AS d) AS different FROM by_index;

-- A cursor that keeps fetching gets all rows, each once, in order; and holds what it saw when it was opened.
BEGIN;
DECLARE all_rows CURSOR FOR SELECT id, e <-> spot(7, 0.3) AS d FROM photo WHERE e IS NOT NULL ORDER BY e <-> spot(7, 0.3);
CREATE TEMP TABLE fetched (n serial, id bigint, d float8) ON COMMIT DROP;
DO $$
DECLARE c refcursor := 'all_rows'; r record;
BEGIN
    FOR i IN 1 .. 3 LOOP FETCH c INTO r; INSERT INTO fetched (id, d) VALUES (r.id, r.d); END LOOP;
    DELETE FROM photo WHERE id % 10 = 0;
    INSERT INTO photo SELECT n, spot(n) FROM generate_series(10001, 10500) AS n;
    LOOP FETCH c INTO r; EXIT WHEN NOT FOUND; INSERT INTO fetched (id, d) VALUES (r.id, r.d); END LOOP;
END
$$;
SELECT count(*), count(DISTINCT id), max(id), bool_and(ordered) AS ordered FROM (SELECT *, d >= lag(d, 1, 0) OVER (ORDER BY n) AS ordered FROM fetched) AS f;
ROLLBACK;
SELECT * FROM exact_all('photo');
SELECT rows, visible FROM sketch_check_index('photo_e');

-- A query that is NULL: every distance is.
SELECT count(*), count(d) FROM (SELECT e <-> NULL::embedding AS d FROM photo ORDER BY e <-> (SELECT NULL::embedding) LIMIT 10) AS n;
-- Two orders: the second decides between equal distances.
PREPARE two_orders(embedding, embedding) AS SELECT id FROM photo ORDER BY e <-> $1, e <-> $2 LIMIT 1;
SET plan_cache_mode = force_generic_plan;
EXPLAIN (COSTS off) EXECUTE two_orders(spot(2), spot(3));
RESET plan_cache_mode;
SELECT (SELECT array_agg(id) FROM (SELECT id FROM photo ORDER BY e <-> spot(2), e <-> spot(3) LIMIT 20) AS i)
     = (SELECT array_agg(id) FROM (SELECT id FROM photo ORDER BY (e <-> spot(2)) + 0, e <-> spot(3) LIMIT 20) AS s) AS two_orders;

-- What does not compare with the query is infinitely far, for a sequential scan as well: a warning says why.
SELECT exact('photo', '[1,2,3]');
CREATE TABLE origin (id bigint, e embedding);
CREATE INDEX origin_e ON origin USING ivfexact (e);
INSERT INTO origin SELECT n, spot(n, 0.2, '@0000000a/000000ff') FROM generate_series(1, 500) AS n;
INSERT INTO origin SELECT n, spot(n, 0.2, '@0000000a') FROM generate_series(501, 600) AS n;
SELECT exact('origin', spot(3, 0.2, '@0000000b'));
SELECT exact('origin', spot(3, 0.2, '@0000000a'));
SELECT exact('origin', spot(3));
SELECT exact('origin', spot(3, 0.2, '@0000000a/000000fe'), 200);
SELECT exact('origin', spot(3, 0.2, '@0000000a/000000fe'), 10, 'id > 500');
-- A row from elsewhere is in nobody's way.
INSERT INTO origin VALUES (601, spot(3, 0.2, '@0000000b'));
SELECT exact('origin', spot(3, 0.2, '@0000000a'));
SELECT exact('origin', spot(3, 0.2, '@0000000a'), 1000);

-- An index that was empty; NULL; another dimension.
CREATE TABLE empty (id bigint, e embedding);
SET client_min_messages = notice;
CREATE INDEX empty_e ON empty USING ivfexact (e);
SET client_min_messages = warning;
SELECT exact('empty', spot(1));
SELECT * FROM sketch_check_index('empty_e');
VACUUM empty;
-- NULL is in no index: a scan of it ends where the distances end.
INSERT INTO empty VALUES (0, NULL);
SELECT exact('empty', spot(1), 10, 'e IS NOT NULL');
SELECT id FROM empty ORDER BY e <-> spot(1);
INSERT INTO empty SELECT n, spot(n) FROM generate_series(1, 2000) AS n;
SELECT * FROM exact_all('empty');
INSERT INTO empty VALUES (-1, '[1,2,3]');
SELECT lists, rows, visible, free, unused_pages FROM sketch_check_index('empty_e');
REINDEX INDEX empty_e;
SELECT * FROM exact_all('empty');
SELECT lists > 1 AS lists, rows, visible FROM sketch_check_index('empty_e');
CREATE TABLE mixed AS SELECT n AS id, CASE n WHEN 700 THEN '[1,2]' ELSE spot(n) END AS e FROM generate_series(1, 800) AS n;
CREATE INDEX ON mixed USING ivfexact (e);
CREATE INDEX mixed_e ON mixed USING ivfexact (e) WHERE sketch_dimension(e) = 16;
SELECT exact('mixed', spot(5), 10, 'sketch_dimension(e) = 16');
-- Dead rows of another dimension are in nobody's way.
BEGIN;
CREATE TABLE changed (id bigint, e embedding);
INSERT INTO changed SELECT n, '[1,2]' FROM generate_series(1, 100) AS n;
UPDATE changed SET e = spot(id);
CREATE INDEX changed_e ON changed USING ivfexact (e);
COMMIT;
SELECT exact('changed', spot(5));

-- Expressions, and a covering WHERE.
CREATE INDEX small_text ON small USING ivfexact ((spot(id, 0.1))) WHERE id > 5;
SELECT count(*) FROM (SELECT id FROM small WHERE id > 5 ORDER BY spot(id, 0.1) <-> spot(3) LIMIT 20) AS s;
SELECT rows, visible FROM sketch_check_index('small_text');

-- Equal rows by the thousand.
CREATE TABLE twin AS SELECT n AS id, spot(n % 3, 0) AS e FROM generate_series(1, 3000) AS n;
CREATE INDEX twin_e ON twin USING ivfexact (e);
SELECT * FROM exact_all('twin', 1500);
SELECT rows, visible FROM sketch_check_index('twin_e');

-- One dimension, the zero vector, 4 bits, and more dimensions than a page of codes has room for.
CREATE TABLE line AS SELECT n AS id, format('[%s]', n - 250)::embedding AS e FROM generate_series(1, 500) AS n;
CREATE INDEX line_e ON line USING ivfexact (e) WITH (lists = 7, bits = 4);
SELECT exact('line', '[0]'), exact('line', '[-1000]', 500), exact('line', '[60000]', 3);
SELECT lists, rows, visible FROM sketch_check_index('line_e');
CREATE INDEX photo_4 ON photo USING ivfexact (e) WITH (bits = 4);
DROP INDEX photo_e;
SELECT * FROM exact_all('photo');
SELECT rows, visible FROM sketch_check_index('photo_4');
CREATE INDEX photo_e ON photo USING ivfexact (e) WITH (lists = 50);
DROP INDEX photo_4;
CREATE TABLE wide AS SELECT n AS id, (SELECT array_agg(sin(n * i))::real[] FROM generate_series(1, 16000) AS i)::embedding AS e FROM generate_series(1, 12) AS n;
CREATE INDEX wide_e ON wide USING ivfexact (e);
SELECT exact('wide', (SELECT e FROM wide WHERE id = 3), 5);
INSERT INTO wide SELECT id + 100, e FROM wide;
SELECT exact('wide', (SELECT e FROM wide WHERE id = 3), 20);
SELECT rows, visible FROM sketch_check_index('wide_e');

-- Options.
CREATE INDEX ON small USING ivfexact (e) WITH (lists = -1);
CREATE INDEX ON small USING ivfexact (e) WITH (lists = 65536);
CREATE INDEX ON small USING ivfexact (e) WITH (bits = 5);
CREATE INDEX ON small USING ivfexact (e) WITH (probes = 5);
ALTER INDEX small_e SET (lists = 3);
REINDEX INDEX small_e;
SELECT lists FROM sketch_check_index('small_e');
-- What it does not do.
CREATE UNIQUE INDEX ON small USING ivfexact (e);
CREATE INDEX ON small USING ivfexact (e, e);
CREATE INDEX ON small USING ivfexact (id);

-- UPDATE, HOT and not, DELETE, VACUUM, and slots that are used again.
UPDATE photo SET label = 'hot' WHERE id % 7 = 0;
UPDATE photo SET e = spot(id + 1) WHERE id % 5 = 0;
UPDATE photo SET e = NULL WHERE id % 11 = 0;
DELETE FROM photo WHERE id % 3 = 0;
SELECT * FROM exact_all('photo');
SELECT rows >= visible AS dead, visible FROM sketch_check_index('photo_e');
VACUUM photo;
SELECT * FROM exact_all('photo');
SELECT rows = visible AS clean, free > 0 AS free FROM sketch_check_index('photo_e');
INSERT INTO photo SELECT n, spot(n), 'new' FROM generate_series(20001, 20300) AS n;
SELECT * FROM exact_all('photo');
SELECT rows = visible AS clean FROM sketch_check_index('photo_e');
-- What was rolled back is as if it had never been.
BEGIN;
INSERT INTO photo SELECT n, spot(n), 'gone' FROM generate_series(30001, 30300) AS n;
SAVEPOINT s;
DELETE FROM photo;
SELECT exact('photo', spot(1));
ROLLBACK TO s;
SELECT exact('photo', spot(1));
ROLLBACK;
SELECT * FROM exact_all('photo');
VACUUM photo;
SELECT rows = visible AS clean FROM sketch_check_index('photo_e');
DELETE FROM photo;
VACUUM photo;
SELECT exact('photo', spot(1));
INSERT INTO photo SELECT n, spot(n), n % 100 FROM generate_series(1, 2000) AS n;
SELECT * FROM exact_all('photo');
SELECT rows, visible FROM sketch_check_index('photo_e');

-- CONCURRENTLY, REINDEX, VACUUM FULL, CLUSTER, TRUNCATE: all through the server's own ways.
CREATE INDEX CONCURRENTLY photo_c ON photo USING ivfexact (e);
DROP INDEX photo_e;
SELECT * FROM exact_all('photo');
SELECT rows, visible FROM sketch_check_index('photo_c');
REINDEX INDEX CONCURRENTLY photo_c;
SELECT * FROM exact_all('photo');
REINDEX TABLE photo;
VACUUM FULL photo;
SELECT * FROM exact_all('photo');
ALTER TABLE photo ADD extra int DEFAULT 1;
CLUSTER photo USING photo_pkey;
SELECT * FROM exact_all('photo');
CLUSTER photo USING photo_c;
TRUNCATE photo;
SELECT exact('photo', spot(1));
INSERT INTO photo SELECT n, spot(n) FROM generate_series(1, 500) AS n;
SELECT * FROM exact_all('photo');
SELECT lists, rows, visible FROM sketch_check_index('photo_c');

-- UNLOGGED and TEMP tables.
CREATE UNLOGGED TABLE unlogged (id bigint, e embedding);
CREATE INDEX unlogged_e ON unlogged USING ivfexact (e);
INSERT INTO unlogged SELECT n, spot(n) FROM generate_series(1, 500) AS n;
SELECT * FROM exact_all('unlogged');
ALTER TABLE unlogged SET LOGGED;
SELECT * FROM exact_all('unlogged');
SELECT rows, visible FROM sketch_check_index('unlogged_e');
CREATE TEMP TABLE passing AS SELECT n AS id, spot(n) AS e FROM generate_series(1, 500) AS n;
CREATE INDEX passing_e ON passing USING ivfexact (e);
SELECT * FROM exact_all('passing');
SELECT rows, visible FROM sketch_check_index('passing_e');

-- Partitions: an ordered scan of each, merged.
CREATE TABLE part (id bigint, e embedding) PARTITION BY RANGE (id);
CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (700);
CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM (700) TO (2000);
CREATE INDEX part_e ON part USING ivfexact (e);
INSERT INTO part SELECT n, spot(n) FROM generate_series(1, 1500) AS n;
SET enable_sort = off;
SELECT plan($$SELECT id FROM part ORDER BY e <-> spot(3) LIMIT 3$$);
SELECT * FROM exact_all('part');
RESET enable_sort;
SELECT * FROM sketch_check_index('part_e');

-- Several processes build what one builds.
SET maintenance_work_mem = '96MB';
SET min_parallel_table_scan_size = 0;
SET max_parallel_maintenance_workers = 2;
CREATE INDEX twin_p ON twin USING ivfexact (e);
SET max_parallel_maintenance_workers = 0;
SELECT (SELECT rows FROM sketch_check_index('twin_p')) = (SELECT rows FROM sketch_check_index('twin_e')) AS same;
DROP INDEX twin_e;
SELECT * FROM exact_all('twin', 1500);
RESET maintenance_work_mem;
RESET min_parallel_table_scan_size;
RESET max_parallel_maintenance_workers;

-- Few lists are an approximation, and so it must be asked for.
SET pg_sketch.max_lists = 1;
SELECT count(*) FROM (SELECT id FROM photo ORDER BY e <-> spot(3) LIMIT 10) AS n;
SELECT lists <= 1 AS one_list FROM sketch_index_scan();
RESET pg_sketch.max_lists;
SET pg_sketch.max_lists = -1;

-- So is a recall of less than 1; distances and order of what is found are exact.
SET pg_sketch.recall = 0.5;
SELECT count(*) AS rows, bool_and(d >= before OR before IS NULL) AS ordered
FROM (SELECT d, lag(d) OVER () AS before FROM (SELECT e <-> spot(3) AS d FROM photo ORDER BY e <-> spot(3) LIMIT 10) AS n) AS n;
RESET pg_sketch.recall;
SET pg_sketch.recall = 2;
-- The recall of real queries is measured.
CREATE FUNCTION measured(index regclass, recall float8, nearest integer DEFAULT 10) RETURNS record LANGUAGE sql AS $$
    SELECT m.recall BETWEEN 0.3 AND 1, m.worst <= m.recall, m.ms > 0, m.exact_ms > 0
    FROM sketch_measure_recall(index, (SELECT array_agg(spot(n, 0.3)) FROM generate_series(7, 400, 13) AS n), recall, nearest) AS m
$$;
SELECT measured('photo_c', 0.9), measured('photo_c', NULL, 1);
SELECT recall, worst FROM sketch_measure_recall('photo_c', ARRAY[spot(3), NULL, spot(7)], 1, 5000);
SELECT recall, worst FROM sketch_measure_recall('empty_e', ARRAY[spot(3)]);
SELECT * FROM sketch_measure_recall('photo_c', NULL);
SELECT current_setting('pg_sketch.recall');
SELECT sketch_measure_recall('photo_pkey', ARRAY[spot(3)]);

-- What a scan visited.
SELECT count(*) FROM (SELECT id FROM empty ORDER BY e <-> spot(3) LIMIT 10) AS n;
SELECT lists BETWEEN 1 AND 2000 AS lists, rows BETWEEN 10 AND 2000 AS rows, refined <= rows AS refined, pages > 0 AS pages, rounds > 0 AS rounds FROM sketch_index_scan();
SELECT idx_scan > 0 AS counted FROM pg_stat_user_indexes, pg_sleep(0) WHERE indexrelname = 'empty_e' AND pg_stat_force_next_flush() IS NOT NULL;

-- sketch_check_index is for owners, and for indexes of this access method.
SELECT sketch_check_index('photo_pkey');
SELECT sketch_check_index('photo');
SELECT sketch_check_index(NULL);
CREATE ROLE sketch_other;
SET ROLE sketch_other;
SELECT sketch_check_index('photo_c');
RESET ROLE;
DROP ROLE sketch_other;
-- Its expressions and predicate are run by the owner of the table, whoever checks, and nobody's search path leads them astray.
CREATE ROLE sketch_owner;
CREATE SCHEMA sketch_owner AUTHORIZATION sketch_owner;
SET ROLE sketch_owner;
CREATE TABLE sketch_owner.seen (who name, path text);
CREATE FUNCTION sketch_owner.note() RETURNS void LANGUAGE sql VOLATILE AS
    $$ INSERT INTO sketch_owner.seen VALUES (current_user, current_setting('search_path')) $$;
CREATE FUNCTION sketch_owner.spy(public.embedding) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
    $$ BEGIN PERFORM sketch_owner.note(); RETURN true; END $$;
CREATE TABLE sketch_owner.spied AS SELECT n AS id, spot(n) AS e FROM generate_series(1, 5) AS n;
CREATE INDEX spied_e ON sketch_owner.spied USING ivfexact (e) WHERE sketch_owner.spy(e);
TRUNCATE sketch_owner.seen;
RESET ROLE;
SELECT rows, visible FROM sketch_check_index('sketch_owner.spied_e');
SELECT DISTINCT who, path FROM sketch_owner.seen;
SELECT current_user, current_setting('search_path') AS path;
DROP SCHEMA sketch_owner CASCADE;
DROP ROLE sketch_owner;
CREATE TABLE moved AS SELECT spot(n + 1) AS other, spot(n) AS e FROM generate_series(1, 10) AS n;
CREATE INDEX moved_e ON moved USING ivfexact (e);

-- What it is for: a row without an entry, and an entry of another row.
UPDATE pg_index SET indisready = false WHERE indexrelid = 'photo_c'::regclass;
INSERT INTO photo VALUES (-1, spot(-1));
UPDATE pg_index SET indisready = true WHERE indexrelid = 'photo_c'::regclass;
SELECT sketch_check_index('photo_c') IS NULL;
UPDATE pg_index SET indkey = '1' WHERE indexrelid = 'moved_e'::regclass;
SELECT sketch_check_index('moved_e') IS NULL;
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'photo_c'::regclass;
SELECT sketch_check_index('photo_c') IS NULL;

-- The first statement of a session.
\c -
SELECT recall FROM sketch_measure_recall('twin_p', ARRAY(SELECT e FROM twin WHERE e IS NOT NULL LIMIT 1));
DROP TABLE moved, photo, small, origin, empty, mixed, changed, twin, line, wide, unlogged, part;
DROP FUNCTION exact_all, exact, plan, spot;
