-- sketch_enable to sketch_disable: a table of photos.
\set VERBOSITY default
CREATE TABLE photo (id int PRIMARY KEY, title text, image bytea);
INSERT INTO photo SELECT n, 'p' || n, bytes FROM fixture, generate_series(1, 3) AS n WHERE name = 'photo.png';
SELECT sketch_enable('photo', 'image');
\d photo
SELECT id, sketch_dimension(embedding) AS embedding, sketch_dimension(fused) AS fused, sketch_codebook_id(fused) FROM photo ORDER BY id;
SELECT * FROM sketch_gallery('photo');
SELECT relation, image, embedding, fused, codebook FROM sketch.gallery;

-- New and changed photos.
INSERT INTO photo (id, image) SELECT 4, bytes FROM fixture WHERE name = 'plain.jpg';
SELECT a.id, a.embedding <-> b.embedding > 0 AS differs FROM photo AS a, photo AS b WHERE (a.id, b.id) = (4, 1);
UPDATE photo SET image = (SELECT bytes FROM fixture WHERE name = 'photo.png') WHERE id = 4;
SELECT a.embedding <-> b.embedding AS distance FROM photo AS a, photo AS b WHERE (a.id, b.id) = (4, 1);
UPDATE photo SET image = NULL WHERE id = 4;
SELECT embedding IS NULL AND fused IS NULL AS cleared FROM photo WHERE id = 4;
SELECT id FROM photo ORDER BY sketch_distance(fused, '[[[0,99,50],[0,30,80]]]'::bytea), id LIMIT 10;

-- A photo that is what it was is not embedded again; an embedding that is brought along is kept.
SELECT value AS before FROM sketch_status() WHERE name = 'photos_embedded' \gset
UPDATE photo SET image = image, title = 'same' WHERE id < 4;
UPDATE photo SET image = (SELECT bytes FROM fixture WHERE name = 'photo.png') WHERE id < 4;
CREATE TEMP TABLE copy AS SELECT * FROM photo WHERE id = 1;
INSERT INTO photo SELECT 5, title, image, embedding, fused FROM copy;
SELECT value::int - :before AS embedded FROM sketch_status() WHERE name = 'photos_embedded';
-- But not one of nobody knows which model, nor with another photo.
INSERT INTO photo SELECT 6, title, image, '[1,2]', NULL FROM copy;
UPDATE photo SET image = (SELECT bytes FROM fixture WHERE name = 'lossy.webp') WHERE id = 5;
SELECT value::int - :before AS embedded FROM sketch_status() WHERE name = 'photos_embedded';

-- One bad file never stops an import.
INSERT INTO photo (id, image) SELECT n, CASE n WHEN 11 THEN '\x00' WHEN 12 THEN substring(bytes FOR 300) ELSE bytes END
FROM generate_series(10, 13) AS n, fixture WHERE name = 'photo.png';
SELECT id, embedding IS NOT NULL AS embedded, image IS NOT NULL AS kept FROM photo WHERE id >= 10 ORDER BY id;
SET pg_sketch.broken_photo = error;
INSERT INTO photo (id, image) VALUES (14, '\x00');
SET pg_sketch.broken_photo = perhaps;
RESET pg_sketch.broken_photo;

-- How fast depends on the machine.
\set VERBOSITY terse
SET client_min_messages = warning;
-- Whoever was first with a codebook of the table's name has one of his own.
CREATE ROLE sketch_squatter;
GRANT TEMPORARY ON DATABASE postgres TO sketch_squatter;
SET ROLE sketch_squatter;
CREATE TEMP TABLE squat AS SELECT (format('[%s]@%s', (SELECT string_agg((n + i)::text, ',') FROM generate_series(1, 512) AS i),
                                          lpad(to_hex(sketch_current_model()), 8, '0')))::embedding AS embedding FROM generate_series(1, 9) AS n;
SELECT sketch_build_codebook(name, 'squat', prototypes => 2) = sketch_current_codebook(name) AS built FROM unnest(ARRAY['photo', 'public.photo']) AS name;
RESET ROLE;
SELECT sketch_current_codebook('public.photo') AS ours;
-- Enough photos for a codebook: CALL builds it, and fuses all.
CALL sketch_embed_photos('photo');
INSERT INTO photo (id, image) SELECT n, bytes FROM fixture, generate_series(101, 160) AS n WHERE name = 'photo.png';
UPDATE photo SET embedding = (format('[%s]@%s', (SELECT string_agg(sin(id * i)::text, ',') FROM generate_series(1, 512) AS i),
                                     lpad(to_hex(sketch_current_model()), 8, '0')))::embedding WHERE id > 100;
CALL sketch_embed_photos('photo');
SELECT count(*) AS photos, count(fused) AS fused, count(DISTINCT sketch_codebook_id(fused)) AS codebooks,
       bool_and(sketch_codebook_id(fused) = sketch_current_codebook('public.photo')) AS current FROM photo WHERE embedding IS NOT NULL;
SELECT subspaces, prototypes, weight FROM sketch.codebook WHERE codebook_id = sketch_current_codebook('public.photo');
\set VERBOSITY default
-- From now on the trigger fuses.
INSERT INTO photo (id, image) SELECT 200, bytes FROM fixture WHERE name = 'plain.jpg';
SELECT sketch_codebook_id(fused) = sketch_current_codebook('public.photo') AS fused FROM photo WHERE id = 200;
-- A new codebook takes over at the next CALL.
SELECT sketch_build_codebook('public.photo', 'photo', prototypes => 4) = sketch_current_codebook('public.photo') AS newer;
SELECT count(*) AS still_old FROM photo WHERE sketch_codebook_id(fused) <> sketch_current_codebook('public.photo');
CALL sketch_embed_photos('photo');
SELECT count(*) AS still_old FROM photo WHERE sketch_codebook_id(fused) <> sketch_current_codebook('public.photo');

-- Rows from elsewhere do not end a search; they are last, and the next CALL mends them.
ALTER TABLE photo DISABLE TRIGGER sketch_trigger;
UPDATE photo SET fused = '[1,2]@deadbeef' WHERE id = 2;
UPDATE photo SET fused = regexp_replace(fused::text, '@[0-9a-f]*', '@deadbeef')::embedding WHERE id = 3;
ALTER TABLE photo ENABLE TRIGGER sketch_trigger;
\set VERBOSITY terse
SELECT count(*) FILTER (WHERE d = 'infinity') AS infinite, count(*) FILTER (WHERE d < 'infinity') > 50 AS finite
FROM (SELECT sketch_distance(fused, '[[[0,99,50],[0,30,80]]]'::bytea) AS d FROM photo WHERE fused IS NOT NULL) AS all_photos;
\set VERBOSITY default
CALL sketch_embed_photos('photo');
SELECT count(*) AS from_elsewhere FROM photo WHERE sketch_model_id(fused) <> sketch_model_id(embedding);

-- What is missing is embedded in batches.
ALTER TABLE photo DISABLE TRIGGER sketch_trigger;
INSERT INTO photo (id, image) SELECT n, bytes FROM fixture, generate_series(301, 307) AS n WHERE name = 'photo.png';
ALTER TABLE photo ENABLE TRIGGER sketch_trigger;
CALL sketch_embed_photos('photo', 2);
RESET client_min_messages;
SELECT count(fused) AS fused FROM photo WHERE id > 300;

-- What is refused.
SELECT sketch_enable('photo', 'image');
SELECT sketch_enable('photo', 'title');
SELECT sketch_enable('photo', 'nonesuch');
SELECT sketch_enable('nonesuch', 'image');
CREATE TABLE plain (id int);
SELECT sketch_disable('plain');
CALL sketch_embed_photos('plain');
SELECT sketch_gallery('plain');
SELECT sketch_gallery(0);
SELECT sketch_enable(0, 'image');
SELECT sketch_disable(1);
CALL sketch_embed_photos(0);
SELECT sketch_trigger();
CREATE TRIGGER wrong BEFORE INSERT ON plain FOR EACH ROW EXECUTE FUNCTION sketch_trigger('id', 'id', 'id', 'x');
INSERT INTO plain VALUES (1);
CREATE OR REPLACE TRIGGER wrong AFTER INSERT ON plain FOR EACH ROW EXECUTE FUNCTION sketch_trigger();
INSERT INTO plain VALUES (1);
DROP TABLE plain;
SELECT 'photo'::sketch.regcolumn;
SELECT 'photo.nonesuch'::sketch.regcolumn;
SELECT 'nonesuch.image'::sketch.regcolumn;
ALTER TABLE photo ALTER fused TYPE text USING fused::text;

-- The gallery follows renames of its table and columns.
CREATE SCHEMA elsewhere;
ALTER TABLE photo RENAME fused TO merged;
ALTER TABLE photo RENAME embedding TO "Von selbst";
ALTER TABLE photo RENAME image TO picture;
ALTER TABLE photo RENAME TO album;
ALTER TABLE album SET SCHEMA elsewhere;
SELECT relation, image_column, embedding_column, fused_column, codebook, codebook_owner FROM sketch.galleries;
INSERT INTO elsewhere.album (id, picture) SELECT 400, bytes FROM fixture WHERE name = 'photo.png';
SET client_min_messages = warning;
\set VERBOSITY terse
DELETE FROM elsewhere.album WHERE id IN (11, 12);
ALTER TABLE elsewhere.album DISABLE TRIGGER ALL;
INSERT INTO elsewhere.album (id, picture) SELECT 401, bytes FROM fixture WHERE name = 'photo.png';
ALTER TABLE elsewhere.album ENABLE TRIGGER ALL;
CALL sketch_embed_photos('elsewhere.album');
RESET client_min_messages;
\set VERBOSITY default
SELECT id, sketch_codebook_id(merged) = sketch_current_codebook('public.photo') AS fused, "Von selbst" <-> photo_embed(picture) AS distance
FROM elsewhere.album WHERE id >= 400 ORDER BY id;
ALTER TABLE elsewhere.album SET SCHEMA public;
ALTER TABLE album RENAME TO photo;
DROP SCHEMA elsewhere;

SELECT sketch_disable('photo');
\d photo
SELECT count(*) AS galleries FROM sketch.gallery;

-- Dropping the table or a column ends the gallery, with its trigger; a rollback restores it.
CREATE TABLE dropped (id int, image bytea);
SELECT sketch_enable('dropped', 'image', embed => false);
BEGIN;
DROP TABLE dropped;
SELECT count(*) AS galleries FROM sketch.gallery;
ROLLBACK;
ALTER TABLE dropped DROP COLUMN id;
SELECT relation, image, embedding, fused, codebook, codebook_owner, model_id = sketch_current_model() AS current FROM sketch.gallery;
ALTER TABLE dropped DROP COLUMN embedding;
SET client_min_messages = warning;
ALTER TABLE dropped DROP COLUMN embedding CASCADE;
RESET client_min_messages;
SELECT count(*) AS galleries FROM sketch.gallery;
INSERT INTO dropped (image) SELECT bytes FROM fixture WHERE name = 'photo.png';
ALTER TABLE dropped DROP COLUMN fused;
SELECT sketch_enable('dropped', 'image', embed => false);
ALTER TABLE dropped DROP COLUMN image;
ALTER TABLE dropped DROP COLUMN image CASCADE;
\d dropped
SELECT count(*) AS galleries FROM sketch.gallery;
DROP TABLE dropped;

-- A temporary table ends without an event. What it leaves goes with the next gallery that comes or ends.
CREATE TEMP TABLE fleeting (image bytea);
SELECT sketch_enable('fleeting', 'image', embed => false);
DISCARD TEMP;
SELECT count(*) AS visible FROM sketch.galleries;
CREATE TEMP TABLE fleeting (image bytea);
SELECT sketch_enable('fleeting', 'image', embed => false);
SELECT count(*) AS galleries FROM sketch.gallery;
DISCARD TEMP;
CREATE TABLE other ();
DROP TABLE other;
SELECT count(*) AS galleries FROM sketch.gallery;

-- sketch_enable accepts a table that has trigger and columns already, as from a dump of the table alone.
CREATE TABLE copied (image bytea, embedding embedding, fused embedding);
CREATE TRIGGER sketch_trigger BEFORE INSERT OR UPDATE OF image ON copied FOR EACH ROW EXECUTE FUNCTION sketch_trigger('image', 'embedding', 'fused', 'photo');
INSERT INTO copied SELECT bytes FROM fixture WHERE name = 'photo.png';
SELECT sketch_enable('copied', 'image', embed => false);
INSERT INTO copied SELECT bytes FROM fixture WHERE name = 'photo.png';
UPDATE copied SET fused = '[1,2]@deadbeef';
SELECT embedding <-> photo_embed(image) AS distance, sketch_correct(embedding) <-> fused AS fused FROM copied;
DROP TABLE copied;

-- Partitions: each photo gets its own embedding, although rows of two partitions have the same ctid.
CREATE TABLE parted (id int, dropped int, image bytea) PARTITION BY LIST (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
ALTER TABLE parted DROP COLUMN dropped;
SELECT sketch_enable('parted', 'image', embed => false);
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES IN (2);
SELECT sketch_enable('parted_1', 'image');
SELECT * FROM sketch_gallery('parted_2');
INSERT INTO parted SELECT 2, bytes FROM fixture WHERE name = 'photo.png';
SELECT id, embedding <-> photo_embed(image) AS distance FROM parted;
TRUNCATE parted;
ALTER TABLE parted_1 DISABLE TRIGGER ALL;
ALTER TABLE parted_2 DISABLE TRIGGER ALL;
INSERT INTO parted SELECT CASE name WHEN 'photo.png' THEN 1 ELSE 2 END, bytes FROM fixture WHERE name IN ('photo.png', 'plain.jpg');
SET client_min_messages = warning;
CALL sketch_embed_photos('parted');
RESET client_min_messages;
SELECT id, ctid, embedding <-> photo_embed(image) AS distance FROM parted ORDER BY id;
DROP TABLE parted;

-- sketch_enable builds the codebook if there are enough photos: here one JPEG with 70 quantisation tables.
CREATE TABLE enough AS
SELECT n AS id, set_byte(bytes, position('\xffdb'::bytea IN bytes) + 4, n) AS image FROM fixture, generate_series(1, 70) AS n WHERE name = 'plain.jpg';
SELECT sketch_enable('enough', 'image');
SELECT count(*) AS photos, bool_and(embedding <-> photo_embed(image) = 0) AS embedded,
       bool_and(sketch_codebook_id(fused) = sketch_current_codebook('public.enough') AND fused <-> sketch_fuse(embedding, 'public.enough') = 0) AS fused
FROM enough;
SELECT sketch_build_codebook('public.enough', 'enough') = sketch_current_codebook('public.enough') AS same_codebook;
SELECT sketch_fuse_photos('enough') AS still_to_fuse;
DROP TABLE enough;

-- Photos that are all the same are no codebook: they stay unfused. Functions of others with our functions' names change nothing.
CREATE FUNCTION sketch_build_codebook(name text, photos regclass, embedding_column text DEFAULT 'embedding', owner text DEFAULT current_user,
                                      further int DEFAULT 1) RETURNS bigint LANGUAGE sql AS 'SELECT 0::bigint';
CREATE TABLE alike AS SELECT n AS id, bytes AS image FROM fixture, generate_series(1, 70) AS n WHERE name = 'plain.jpg';
SELECT sketch_enable('alike', 'image');
CALL sketch_embed_photos('alike');
SELECT sketch_fuse_photos('alike');
SELECT count(fused) AS photos, max(sketch_correct(embedding) <-> fused) AS distance, sketch_current_codebook('public.alike') AS codebook FROM alike;
UPDATE alike SET image = set_byte(image, position('\xffdb'::bytea IN image) + 4, id);
SELECT sketch_fuse_photos('alike') AS fused;
DROP TABLE alike;
DROP FUNCTION sketch_build_codebook(text, regclass, text, text, int);

-- Names that need quotes, own columns, in another schema, by a user who owns no more than his table.
CREATE ROLE sketch_owner;
CREATE SCHEMA "Odd one" AUTHORIZATION sketch_owner;
GRANT SELECT ON fixture TO sketch_owner;
SET ROLE sketch_owner;
CREATE TABLE "Odd one"."Bild ""1""" ("Bild é" bytea);
INSERT INTO "Odd one"."Bild ""1""" SELECT bytes FROM fixture WHERE name = 'photo.png';
SELECT sketch_enable('"Odd one"."Bild ""1"""', 'Bild é', 'Einbettung', 'Ver schmolzen', embed => false);
SELECT * FROM sketch_gallery('"Odd one"."Bild ""1"""');
SELECT image, embedding, fused FROM sketch.gallery;
UPDATE sketch.gallery SET codebook = 'x';
SET client_min_messages = warning;
CALL sketch_embed_photos('"Odd one"."Bild ""1"""');
INSERT INTO "Odd one"."Bild ""1""" VALUES ('\x00');
SELECT count("Ver schmolzen") AS fused FROM "Odd one"."Bild ""1""";
RESET ROLE;
-- A role without privileges sees and changes no gallery; messages about a broken photo show only what the role may read.
CREATE ROLE sketch_stranger;
CREATE TABLE secret (id int PRIMARY KEY, secret text, image bytea);
INSERT INTO secret VALUES (1, 'topsecret');
SELECT sketch_enable('secret', 'image');
GRANT USAGE ON SCHEMA "Odd one" TO sketch_stranger;
SET ROLE sketch_stranger;
SELECT relation, image_column, embedding_column, fused_column, codebook, codebook_owner FROM sketch.galleries;
SELECT sketch_disable('secret');
SELECT sketch_enable('fixture', 'bytes');
CALL sketch_embed_photos('secret');
DELETE FROM sketch.gallery;
RESET ROLE;
GRANT UPDATE (image) ON secret TO sketch_stranger;
SET ROLE sketch_stranger;
SELECT relation, image_column, embedding_column, fused_column, codebook, codebook_owner FROM sketch.galleries;
UPDATE secret SET image = '\x00';
RESET ROLE;
GRANT SELECT (secret) ON secret TO sketch_stranger;
SET ROLE sketch_stranger;
UPDATE secret SET image = '\x00';
RESET ROLE;
ALTER TABLE secret DROP CONSTRAINT secret_pkey;
SET ROLE sketch_stranger;
UPDATE secret SET image = '\x00';
RESET ROLE;
GRANT SELECT ON secret TO sketch_stranger;
ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
CREATE POLICY "all" ON secret TO sketch_stranger USING (true);
SET ROLE sketch_stranger;
UPDATE secret SET image = '\x00';
RESET ROLE;
UPDATE secret SET image = '\x00';
DROP TABLE secret;
REVOKE ALL ON SCHEMA "Odd one" FROM sketch_stranger;
DROP ROLE sketch_stranger;
SET ROLE sketch_owner;
SELECT sketch_disable('"Odd one"."Bild ""1"""');
RESET ROLE;
DROP SCHEMA "Odd one" CASCADE;
REVOKE ALL ON fixture FROM sketch_owner;
DROP ROLE sketch_owner;
DROP TABLE photo;
SELECT count(*) AS galleries FROM sketch.gallery;
DELETE FROM sketch.codebook;
REVOKE TEMPORARY ON DATABASE postgres FROM sketch_squatter;
DROP OWNED BY sketch_squatter;
DROP ROLE sketch_squatter;

-- NULL is refused where it means nothing.
SELECT sketch_enable(NULL, 'image');
SELECT sketch_enable('fixture', NULL);
SELECT sketch_enable('fixture', 'bytes', NULL);
SELECT sketch_enable('fixture', 'bytes', 'embedding', NULL);
SELECT sketch_enable('fixture', 'bytes', embed => NULL);

-- A policy of row security that embeds while photos are embedded holds up nobody and breaks nothing.
CREATE ROLE sketch_guard;
GRANT CREATE ON SCHEMA public TO sketch_guard;
GRANT SELECT ON fixture TO sketch_guard;
SET ROLE sketch_guard;
CREATE TABLE guarded (id int PRIMARY KEY, image bytea);
INSERT INTO guarded SELECT n, bytes FROM fixture, generate_series(1, 5) AS n WHERE name = 'photo.png';
SELECT sketch_enable('guarded', 'image', embed => false);
CREATE FUNCTION guard(id int) RETURNS bool LANGUAGE sql VOLATILE
    AS $$ SELECT sketch_embed(format('[[[0,%s],[5,9]]]', id)::bytea) IS NOT NULL $$;
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
ALTER TABLE guarded FORCE ROW LEVEL SECURITY;
CREATE POLICY guard ON guarded USING (guard(id));
CALL sketch_embed_photos('guarded');
SELECT count(embedding) AS embedded FROM guarded;
RESET ROLE;
DROP OWNED BY sketch_guard;
REVOKE ALL ON fixture FROM sketch_guard;
DROP ROLE sketch_guard;
