-- Functions and tables of the index benchmark.

SET client_min_messages = warning;

-- Runs a statement for the first queries, and measures it including planning. The statement takes the query's id as $1 and
-- returns the columns "id" and "distance".
CREATE OR REPLACE FUNCTION answers(statement text, queries integer)
    RETURNS TABLE (query integer, ids bigint[], distances double precision[], ms double precision)
    LANGUAGE plpgsql AS $$
DECLARE
    started timestamptz;
BEGIN
    FOR number IN 1..queries LOOP
        query := number;
        started := clock_timestamp();
        EXECUTE format('SELECT array_agg(id), array_agg(distance) FROM (%s) AS nearest', statement)
            INTO ids, distances USING query;
        ms := 1000 * extract(epoch FROM clock_timestamp() - started);
        RETURN NEXT;
    END LOOP;
END
$$;

-- Fetches all rows of such a statement from a cursor, one by one. The checksum of the distances depends on their order; that
-- of the ids does not, because rows at equal distance may come in any order.
CREATE OR REPLACE FUNCTION walk(statement text, query integer)
    RETURNS TABLE (rows bigint, distances bigint, ids bigint, first_ms double precision, ms double precision)
    LANGUAGE plpgsql AS $$
DECLARE
    started timestamptz := clock_timestamp();
    nearest refcursor;
    id bigint;
    distance double precision;
BEGIN
    rows := 0;
    distances := 0;
    ids := 0;
    OPEN nearest FOR EXECUTE statement USING query;
    LOOP
        FETCH nearest INTO id, distance;
        EXIT WHEN NOT FOUND;
        IF rows = 0 THEN
            first_ms := 1000 * extract(epoch FROM clock_timestamp() - started);
        END IF;
        rows := rows + 1;
        distances := hashfloat8extended(distance, distances);
        ids := ids # hashint8extended(id, 0);
    END LOOP;
    ms := 1000 * extract(epoch FROM clock_timestamp() - started);
    RETURN NEXT;
END
$$;

-- Counts what the index reads for each of the first queries.
CREATE OR REPLACE FUNCTION visits(statement text, queries integer)
    RETURNS TABLE (lists bigint, rows bigint, refined bigint, pages bigint) LANGUAGE plpgsql AS $$
BEGIN
    FOR number IN 1..queries LOOP
        EXECUTE format('SELECT count(distance) FROM (%s) AS nearest', statement) USING number;
        RETURN QUERY EXECUTE 'SELECT lists, rows, refined, pages FROM sketch_index_scan()';
    END LOOP;
END
$$;

-- Names the scan that a statement, or DECLARE CURSOR, uses for the photos.
CREATE OR REPLACE FUNCTION plan(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    line text;
BEGIN
    FOR line IN EXECUTE format('EXPLAIN (COSTS OFF) %s', replace(statement, '$1', '1')) LOOP
        IF line ~ ' on photo' THEN
            RETURN lower(substring(line FROM '(\w+) Scan'));
        END IF;
    END LOOP;
END
$$;

-- Share of the exact answers that were found.
CREATE OR REPLACE FUNCTION recall(exact bigint[], found bigint[]) RETURNS double precision LANGUAGE sql IMMUTABLE
    RETURN (SELECT count(*) FROM (SELECT unnest(exact) INTERSECT SELECT unnest(found)) AS both_have)
        / cardinality(exact)::double precision;

-- Figures for one size; "what" is the name of a figure, "index" is ivfexact or hnsw.
CREATE TABLE IF NOT EXISTS figure (what text, index text, value double precision, PRIMARY KEY (what, index));
-- Statements other than the nearest ten; "wrong" counts answers with inexact distances.
CREATE TABLE IF NOT EXISTS trial (trial text, index text, setting text, plan text, ms double precision, rows double precision,
                    expected double precision, recall double precision, wrong text);
-- Recall of the nearest ten and queries per second of one client, by what an index does for them.
CREATE TABLE IF NOT EXISTS effort (index text, effort double precision, recall double precision, rate double precision,
                                   PRIMARY KEY (index, effort));
-- Whether an effort is enough. Only the setting that promises all rows counts as a recall of 1 of ivfexact.
CREATE OR REPLACE FUNCTION reaches(done effort, wanted numeric) RETURNS boolean LANGUAGE sql IMMUTABLE
    RETURN done.recall >= wanted AND (wanted < 1 OR done.index <> 'ivfexact' OR done.effort = 1);
