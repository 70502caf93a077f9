-- Operators, functions and types on the caller's search_path are never used in place of those meant.
\set VERBOSITY default
CREATE SCHEMA trap;
CREATE FUNCTION trap.spring() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped'; END $$;
DO $$
DECLARE
    types text[];
    name text;
BEGIN
    FOREACH types SLICE 1 IN ARRAY '{{oid,regclass},{oid,regproc},{regclass,oid},{oid,oid},{bigint,bigint},{bigint,integer},{integer,bigint},
        {integer,integer},{smallint,integer},{smallint,smallint},{name,name},{name,text},{text,text},{tid,tid},{xid,xid},{"\"char\"","\"char\""},
        {interval,interval},{timestamptz,timestamptz},{regtype,regtype},{oid,regtype},{public.embedding,public.embedding}}'::text[]
    LOOP
        EXECUTE format('CREATE FUNCTION trap.spring(%s, %s) RETURNS boolean LANGUAGE sql AS $f$ SELECT trap.spring() $f$', types[1], types[2]);
        FOREACH name IN ARRAY '{=,<>,<,>,<=,>=,<->}'::text[] LOOP
            EXECUTE format('CREATE OPERATOR trap.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = trap.spring)', name, types[1], types[2]);
        END LOOP;
    END LOOP;
END
$$;
CREATE FUNCTION trap.sketch_fuse(public.embedding, text) RETURNS public.embedding LANGUAGE sql AS $$ SELECT $1 FROM trap.spring() $$;
CREATE DOMAIN trap.embedding AS bytea;
CREATE DOMAIN trap.jsonb AS text;
CREATE TABLE photo (id int, image bytea);
INSERT INTO photo SELECT n, bytes FROM fixture, generate_series(1, 3) AS n WHERE name = 'photo.png';

SET client_min_messages = warning;
SET search_path = trap, pg_catalog;
SELECT 1 = 1::bigint;
SELECT public.sketch_enable('public.photo', 'image');
INSERT INTO public.photo SELECT 4, bytes FROM public.fixture WHERE name OPERATOR(pg_catalog.=) 'plain.jpg';
ALTER TABLE public.photo DISABLE TRIGGER ALL;
INSERT INTO public.photo SELECT n, bytes FROM public.fixture, generate_series(5, 70) AS n WHERE name OPERATOR(pg_catalog.=) 'plain.jpg';
-- A codebook needs distinct embeddings.
UPDATE public.photo SET embedding = (format('[%s]@%s', (SELECT string_agg(sin(id * i)::text, ',') FROM generate_series(1, 512) AS i),
                                            lpad(to_hex(public.sketch_current_model()), 8, '0')))::public.embedding WHERE id OPERATOR(pg_catalog.>) 6;
ALTER TABLE public.photo ENABLE TRIGGER ALL;
CALL public.sketch_embed_photos('public.photo');
SELECT * FROM public.sketch_gallery('public.photo');
SELECT relation, codebook FROM sketch.galleries;
SELECT count(*) AS photos, count(public.sketch_codebook_id(fused)) AS fused FROM public.photo;
SELECT public.sketch_distance(fused, '[[[0,99,50],[0,30,80]]]'::bytea) > 0 AS distance FROM public.photo LIMIT 1;
SELECT public.sketch_disable('public.photo');
CREATE TABLE public.bytes AS SELECT '\x0000ff00ff00ff00ff00ff00ff00ff00'::trap.embedding AS embedding FROM generate_series(1, 10);
SELECT public.sketch_train_codebook('public.bytes', 'embedding', 1, 2, 0.2, true, 10);
RESET search_path;
RESET client_min_messages;
DROP TABLE photo, bytes;
SET client_min_messages = warning;
DROP SCHEMA trap CASCADE;
RESET client_min_messages;
DELETE FROM sketch.codebook;

-- Every SQL function is parsed at creation or has its own search_path; only procedures, which commit, cannot have one.
SELECT p.oid::regprocedure AS without FROM pg_proc AS p JOIN pg_language AS l ON l.oid = prolang
    JOIN pg_depend AS d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
    JOIN pg_extension AS e ON d.refclassid = 'pg_extension'::regclass AND e.oid = d.refobjid AND extname = 'pg_sketch'
WHERE lanname IN ('sql', 'plpgsql') AND prosqlbody IS NULL AND proconfig IS NULL;
