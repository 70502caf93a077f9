-- Galleries in mode background, without a background worker: sketch_maintain does its work.
\set VERBOSITY default
CREATE TABLE photo (id int PRIMARY KEY, title text, image bytea);
INSERT INTO photo SELECT n, 'p' || n, bytes FROM fixture, generate_series(1, 3) AS n WHERE name = 'photo.png';
SELECT sketch_enable('photo', 'image', mode => 'sometimes');
SELECT sketch_enable('photo', 'image', mode => 'background');
SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = 'photo'::regclass ORDER BY tgname;
SELECT gallery, photo, state, attempts, error FROM sketch.queued ORDER BY photo;
SELECT mode, photos, embedded, fused, pending, failed, advice FROM sketch_gallery_status('photo');
-- Nobody embeds; whoever waits is told.
SELECT sketch_wait('photo', '0 s');
SELECT value AS before FROM sketch_status() WHERE name = 'photos_embedded' \gset
CALL sketch_maintain('photo');
SELECT id, embedding <-> photo_embed(image) AS distance, sketch_correct(embedding) <-> fused AS fused FROM photo ORDER BY id;
SELECT count(*) AS queued FROM sketch.queue;
SELECT sketch_wait('photo', '0 s');

-- A new photo, one that brings its embedding along, an UPDATE of the photo, of another column, of a row that waits, a DELETE.
INSERT INTO photo (id, image) SELECT 4, bytes FROM fixture WHERE name = 'plain.jpg';
INSERT INTO photo (id, image, embedding) SELECT 5, image, embedding FROM photo WHERE id = 1;
INSERT INTO photo (id, title) VALUES (6, 'no photo');
UPDATE photo SET image = (SELECT bytes FROM fixture WHERE name = 'plain.jpg') WHERE id = 2;
SELECT embedding IS NULL AND fused IS NULL AS cleared FROM photo WHERE id = 2;
UPDATE photo SET title = 'other' WHERE id IN (1, 4);
UPDATE photo SET image = image WHERE id = 3;
INSERT INTO photo (id, image) SELECT 7, bytes FROM fixture WHERE name = 'plain.jpg';
DELETE FROM photo WHERE id = 7;
-- An entry that is there twice counts once.
INSERT INTO sketch.queue SELECT * FROM sketch.queue;
SELECT value AS before FROM sketch_status() WHERE name = 'photos_embedded' \gset
CALL sketch_maintain('photo');
SELECT value::int - :before AS embedded FROM sketch_status() WHERE name = 'photos_embedded';
SELECT id, embedding <-> photo_embed(image) AS distance, sketch_correct(embedding) <-> fused AS fused FROM photo ORDER BY id;
SELECT count(*) AS queued FROM sketch.queue;
BEGIN;
INSERT INTO photo (id, image) SELECT 8, bytes FROM fixture WHERE name = 'plain.jpg';
SELECT sketch_wait('photo', '0 s');
ROLLBACK;

-- What cannot be embedded fails with its reason, holds up nothing, and is tried again when it is mended.
INSERT INTO photo (id, image) VALUES (11, '\x00'), (12, (SELECT substring(bytes FOR 300) FROM fixture WHERE name = 'photo.png'));
INSERT INTO photo (id, image) SELECT 13, bytes FROM fixture WHERE name = 'plain.jpg';
CALL sketch_maintain('photo');
SELECT photo, state, attempts, due_at, error FROM sketch.queued ORDER BY photo;
SELECT photos, embedded, fused, pending, failed FROM sketch_gallery_status('photo');
SELECT sketch_wait('photo', '0 s');
UPDATE photo SET image = (SELECT bytes FROM fixture WHERE name = 'plain.jpg') WHERE id = 11;
DELETE FROM photo WHERE id = 12;
CALL sketch_maintain('photo');
SELECT count(*) AS queued FROM sketch.queue;
SELECT photos, embedded, fused, pending, failed FROM sketch_gallery_status('photo');

-- An error of the table's own trigger is that row's alone; it is tried again later.
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'row % is topsecret', NEW.id; END $$;
CREATE TRIGGER refuse BEFORE UPDATE ON photo FOR EACH ROW WHEN (NEW.id = 21) EXECUTE FUNCTION refuse();
INSERT INTO photo (id, image) SELECT n, bytes FROM fixture, generate_series(20, 22) AS n WHERE name = 'photo.png';
CALL sketch_maintain('photo');
UPDATE sketch.queue SET due_at = now();
CALL sketch_maintain('photo');
SELECT photo, state, attempts, due_at > now() AS later, error FROM sketch.queued ORDER BY photo;
SELECT count(fused) AS fused FROM photo WHERE id IN (20, 21, 22);
-- The reason is for those who may read the rows.
CREATE ROLE sketch_stranger;
SET ROLE sketch_stranger;
SELECT count(*) AS seen FROM sketch.queued;
SELECT * FROM sketch.queue;
SELECT sketch.row_name('photo'::regclass, '(0,1)');
SELECT * FROM sketch_gallery_status('photo');
SELECT sketch_wait('photo', '0 s');
CALL sketch_maintain('photo');
RESET ROLE;
GRANT SELECT (id) ON photo TO sketch_stranger;
SET ROLE sketch_stranger;
SELECT count(*) AS seen FROM sketch.queued;
RESET ROLE;
REVOKE ALL ON photo FROM sketch_stranger;
DROP ROLE sketch_stranger;
DROP TRIGGER refuse ON photo;
CALL sketch_maintain('photo');
SELECT count(*) AS queued FROM sketch.queue;

-- Rows that all move at once lose their place in the queue, and are found.
INSERT INTO photo (id, image) SELECT n, bytes FROM fixture, generate_series(30, 33) AS n WHERE name = 'photo.png';
DELETE FROM photo WHERE id IN (1, 30);
VACUUM FULL photo;
CALL sketch_maintain('photo');
SELECT count(*) AS photos, count(fused) AS fused FROM photo WHERE id >= 30;
INSERT INTO photo (id, image) SELECT 34, bytes FROM fixture WHERE name = 'photo.png';
TRUNCATE photo;
CALL sketch_maintain('photo');
SELECT count(*) AS queued FROM sketch.queue;
COPY photo (id, title) FROM STDIN;
1	a
2	b
\.
SELECT count(*) AS queued FROM sketch.queue;

-- The mode can be changed, and changes nothing that is there.
SELECT sketch_enable('photo', 'image', mode => 'background');
SELECT sketch_enable('photo', 'image', mode => 'trigger');
INSERT INTO photo (id, image) SELECT 40, bytes FROM fixture WHERE name = 'photo.png';
SELECT count(fused) AS fused, (SELECT count(*) FROM sketch.queue) AS queued FROM photo;
SELECT tgname FROM pg_trigger WHERE tgrelid = 'photo'::regclass ORDER BY tgname;
-- sketch_maintain is for both.
ALTER TABLE photo DISABLE TRIGGER sketch_trigger;
INSERT INTO photo (id, image) SELECT n, bytes FROM fixture, generate_series(41, 43) AS n WHERE name = 'photo.png';
ALTER TABLE photo ENABLE TRIGGER sketch_trigger;
SELECT photos, embedded, pending, advice FROM sketch_gallery_status('photo');
CALL sketch_maintain('photo');
SELECT photos, embedded, pending, advice FROM sketch_gallery_status('photo');
SET client_min_messages = error;
SELECT sketch_enable('photo', 'image', mode => 'background');
RESET client_min_messages;
INSERT INTO photo (id, image) SELECT 44, bytes FROM fixture WHERE name = 'photo.png';
SELECT sketch_disable('photo');
SELECT count(*) AS queued FROM sketch.queue;
DROP TABLE photo;

-- Partitions, and what is dropped while it waits.
SET client_min_messages = error;
CREATE TABLE parted (id int, dropped int, image bytea) PARTITION BY LIST (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
ALTER TABLE parted DROP COLUMN dropped;
SELECT sketch_enable('parted', 'image', mode => 'background');
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES IN (2);
CREATE TABLE parted_3 PARTITION OF parted FOR VALUES IN (3);
INSERT INTO parted SELECT n, bytes FROM fixture, generate_series(1, 3) AS n WHERE name = 'photo.png';
UPDATE parted SET id = 2 WHERE id = 1;
ALTER TABLE parted DETACH PARTITION parted_3;
CALL sketch_maintain('parted');
SELECT tableoid::regclass, embedding <-> photo_embed(image) AS distance FROM parted ORDER BY 1;
SELECT count(*) AS queued FROM sketch.queue;
INSERT INTO parted SELECT n, bytes FROM fixture, generate_series(1, 2) AS n WHERE name = 'photo.png';
DROP TABLE parted_1;
SELECT count(*) AS queued FROM sketch.queue;
DROP TABLE parted;
SELECT count(*) AS queued FROM sketch.queue;
DROP TABLE parted_3;
CREATE TEMP TABLE temporary (image bytea);
SELECT sketch_enable('temporary', 'image', mode => 'background');
RESET client_min_messages;

-- A codebook is built when there are enough photos, and anew when there are many more; what somebody else built stays.
CREATE TABLE growing (id int, image bytea);
SELECT sketch_enable('growing', 'image');
CREATE FUNCTION grow(from_id int, to_id int) RETURNS void LANGUAGE sql AS $$
    INSERT INTO growing (id, image, embedding)
    SELECT n, bytes, (format('[%s]@%s', (SELECT string_agg((sin(n * i) / 16)::text, ',') FROM generate_series(1, 512) AS i),
                             lpad(to_hex(sketch_current_model()), 8, '0')))::embedding
    FROM generate_series(from_id, to_id) AS n, fixture WHERE name = 'photo.png'
$$;
SELECT grow(1, 100);
CALL sketch_maintain('growing');
SELECT photos, fused, drift, codebook_age < '1 minute' AS new, advice FROM sketch_gallery_status('growing');
SELECT grow(101, 140);
CALL sketch_maintain('growing');
SELECT drift > 0 AS drifts FROM sketch_gallery_status('growing');
SELECT grow(141, 160);
SELECT advice FROM sketch_gallery_status('growing');
CALL sketch_maintain('growing');
SELECT photos, fused, advice FROM sketch_gallery_status('growing');
SELECT count(*) AS codebooks, max(prototypes) AS prototypes FROM sketch.codebook JOIN sketch.codebook_name USING (codebook_id) WHERE name = 'public.growing';
SELECT sketch_build_codebook('public.growing', 'growing', prototypes => 3) = sketch_current_codebook('public.growing') AS built;
SELECT fused, pending, advice FROM sketch_gallery_status('growing');
SELECT grow(161, 400);
CALL sketch_maintain('growing');
SELECT photos, fused, (SELECT prototypes FROM sketch.codebook WHERE codebook_id = codebook) AS prototypes, advice FROM sketch_gallery_status('growing');
SELECT count(*) AS galleries FROM sketch_gallery_status('growing') WHERE index IS NULL AND index_size IS NULL;
DROP TABLE growing;
DROP FUNCTION grow;
DELETE FROM sketch.codebook;

-- What is refused.
SELECT sketch_gallery_status('fixture');
SELECT sketch_wait('fixture');
CALL sketch_maintain('fixture');
SELECT sketch_maintain_step(NULL, NULL);
CREATE TABLE plain (id int);
CREATE TRIGGER wrong BEFORE INSERT ON plain FOR EACH ROW EXECUTE FUNCTION sketch_queue_trigger();
INSERT INTO plain VALUES (1);
CREATE OR REPLACE TRIGGER wrong AFTER INSERT ON plain FOR EACH ROW EXECUTE FUNCTION sketch_queue_trigger();
INSERT INTO plain VALUES (1);
DROP TABLE plain;
