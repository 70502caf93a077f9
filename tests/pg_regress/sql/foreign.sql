-- What is not of a gallery's model and codebook is kept out of it, whoever writes it.
\set VERBOSITY default
SET client_min_messages = warning;
CREATE FUNCTION tag() RETURNS text LANGUAGE sql STABLE AS $$ SELECT lpad(to_hex(model_id), 8, '0') FROM sketch.model WHERE name = 'lite2-sketch-2' $$;
CREATE FUNCTION synthetic(n int) RETURNS embedding LANGUAGE sql STABLE AS
    $$ SELECT (format('[%s]@%s', (SELECT string_agg(sin(n * i)::text, ',') FROM generate_series(1, 512) AS i), tag()))::embedding $$;
CREATE ROLE sketch_owner;
CREATE ROLE sketch_writer;
CREATE SCHEMA house AUTHORIZATION sketch_owner;
GRANT USAGE ON SCHEMA house TO sketch_writer;
GRANT SELECT ON fixture TO sketch_owner, sketch_writer;
SET ROLE sketch_owner;
CREATE TABLE house.photo (id int PRIMARY KEY, image bytea);
INSERT INTO house.photo SELECT n, bytes FROM fixture, generate_series(1, 3) AS n WHERE name = 'photo.png';
SELECT sketch_enable('house.photo', 'image');
INSERT INTO house.photo (id, image, embedding) SELECT n, bytes, synthetic(n) FROM fixture, generate_series(101, 164) AS n WHERE name = 'photo.png';
CALL sketch_embed_photos('house.photo');
CREATE INDEX photo_fused ON house.photo USING ivfexact (fused);
GRANT SELECT, INSERT, UPDATE ON house.photo TO sketch_writer;
CREATE TABLE house.stranger AS SELECT embedding, fused FROM house.photo WHERE id = 101;
CREATE VIEW house.state AS
SELECT id, sketch_model_id(embedding) = model_id AS model, fused <-> sketch_fuse(embedding, codebook, codebook_owner) AS distance,
       embedding <-> photo_embed(image, 'lite2-sketch-2') AS drift
FROM house.photo, sketch.galleries WHERE id < 101;
GRANT SELECT ON house.state, house.stranger TO sketch_writer;

-- A writer: of the photo's columns, of all three, of one that the photo never had, in any session.
SET ROLE sketch_writer;
UPDATE house.photo SET fused = '[1,2]@deadbeef' WHERE id = 1;
UPDATE house.photo SET fused = s.fused FROM house.stranger AS s WHERE id = 2;
UPDATE house.photo SET embedding = '[1,2]@deadbeef', fused = s.fused FROM house.stranger AS s WHERE id = 3;
INSERT INTO house.photo SELECT 4, bytes, '[1,2]@deadbeef', '[1,2]@deadbeef/deadbeef' FROM fixture WHERE name = 'photo.png';
INSERT INTO house.photo SELECT 5, NULL, embedding, fused FROM house.stranger;
INSERT INTO house.photo SELECT 6, bytes, (format('[1,2]@%s', tag()))::embedding, NULL FROM fixture WHERE name = 'photo.png';
SELECT * FROM house.state ORDER BY id;
SELECT id, fused FROM house.photo WHERE id = 5;
-- An embedding that is taken away stays away until it is embedded again.
UPDATE house.photo SET embedding = NULL WHERE id = 4;
SELECT embedding, fused FROM house.photo WHERE id = 4;
CALL sketch_embed_photos('house.photo');
RESET ROLE;

-- Another model comes into use: the gallery stays with its own, until its owner moves it.
SELECT sketch_load_model('twin', onnx, manifest || '{"origin": "a twin"}') = sketch_current_model() AS current FROM sketch.model WHERE name = 'lite2-sketch-2';
RESET client_min_messages;
SET ROLE sketch_writer;
UPDATE house.photo SET image = (SELECT bytes FROM fixture WHERE name = 'plain.jpg') WHERE id = 1;
INSERT INTO house.photo SELECT 7, bytes FROM fixture WHERE name = 'plain.jpg';
SELECT * FROM house.state ORDER BY id;
\set VERBOSITY terse
CALL sketch_embed_photos('house.photo');
\set VERBOSITY default
SELECT count(*) FILTER (WHERE sketch_model_id(fused) = model_id) AS own, count(fused) AS fused FROM house.photo, sketch.galleries;
SELECT count(*) AS found FROM (SELECT id FROM house.photo ORDER BY fused <-> sketch_embed('[[[0,99,50],[0,30,80]]]', 'lite2-sketch-2') LIMIT 100) AS nearest;
RESET ROLE;
SET client_min_messages = warning;
SET ROLE sketch_owner;
DELETE FROM house.photo WHERE id > 100;
CALL sketch_embed_photos('house.photo');
RESET ROLE;
\set VERBOSITY terse
DELETE FROM sketch.model WHERE name = 'twin';
\set VERBOSITY default
SET ROLE sketch_owner;
SELECT m.name, count(*), bool_and(sketch_model_id(embedding) = g.model_id) AS embedded
FROM house.photo, sketch.galleries AS g JOIN sketch.model AS m USING (model_id) WHERE image IS NOT NULL GROUP BY m.name;
SET pg_sketch.model = 'lite2-sketch-2';
CALL sketch_embed_photos('house.photo');
SELECT * FROM house.state ORDER BY id;
RESET pg_sketch.model;
RESET ROLE;
DELETE FROM sketch.model WHERE name = 'twin';
SELECT visible = (SELECT count(fused) FROM house.photo) AS indexed FROM sketch_check_index('house.photo_fused');

DROP SCHEMA house CASCADE;
DROP FUNCTION tag, synthetic;
DELETE FROM sketch.codebook;
REVOKE ALL ON fixture FROM sketch_owner, sketch_writer;
DROP ROLE sketch_owner, sketch_writer;
RESET client_min_messages;
