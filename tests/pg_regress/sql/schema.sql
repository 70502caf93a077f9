-- The extension works in a schema that is on nobody's search path.
\set VERBOSITY default
\set photo `base64 -w0 "$FIXTURES/photo.png"`
CREATE DATABASE sketch_elsewhere;
\c sketch_elsewhere
CREATE SCHEMA hidden;
CREATE EXTENSION pg_sketch SCHEMA hidden;
SHOW search_path;
CREATE TABLE photo (id int PRIMARY KEY, image bytea);
SELECT hidden.sketch_enable('photo', 'image');
INSERT INTO photo SELECT n, decode(:'photo', 'base64') FROM generate_series(1, 3) AS n;
-- Embeddings of many kinds, as if they came from a copy.
INSERT INTO photo (id, image, embedding)
SELECT n, decode(:'photo', 'base64'),
       (format('[%s]@%s', (SELECT string_agg((sin(n * i) / 16)::text, ',') FROM generate_series(1, 512) AS i),
               lpad(to_hex(hidden.sketch_current_model()), 8, '0')))::hidden.embedding
FROM generate_series(4, 100) AS n;
CALL hidden.sketch_embed_photos('photo');
SELECT count(*) AS photos, count(hidden.sketch_codebook_id(fused)) AS fused FROM photo;
CREATE INDEX photo_fused ON photo USING ivfexact (fused);
SELECT rows, visible FROM hidden.sketch_check_index('photo_fused');
SELECT count(*) FROM (SELECT id FROM photo ORDER BY hidden.sketch_distance(fused, '[[[0,99,50],[0,30,80]]]'::bytea) LIMIT 10) AS nearest;
SELECT hidden.sketch_build_codebook('mine', 'photo', prototypes => 2) = hidden.sketch_current_codebook('mine') AS built;
SELECT count(*) > 0 AS counted FROM hidden.sketch_stat;
SELECT hidden.sketch_disable('photo');
\c postgres
DROP DATABASE sketch_elsewhere;
