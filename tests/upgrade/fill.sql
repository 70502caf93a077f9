-- What a user of version 0.1.0 may have: two galleries, one of them with names that need quotes and an owner of its own, a
-- codebook of another shape, an index, and a table that was never fused. :photo is a photo in base64.
\set ON_ERROR_STOP on
CREATE EXTENSION pg_sketch;
CREATE TABLE photo (id int PRIMARY KEY, image bytea);
SELECT sketch_enable('photo', 'image');
INSERT INTO photo SELECT 1, decode(:'photo', 'base64');
-- Synthetic embeddings stand in for many different photos, as if they had been copied from another table.
CREATE FUNCTION synthetic(n int) RETURNS embedding LANGUAGE sql AS $$
    SELECT format('[%s]@%s', (SELECT string_agg((sin(n * i) / 16)::text, ',') FROM generate_series(1, 512) AS i),
                  lpad(to_hex(sketch_current_model()), 8, '0'))::embedding
$$;
INSERT INTO photo (id, image, embedding) SELECT n, decode(:'photo', 'base64'), synthetic(n) FROM generate_series(2, 1000) AS n;
CALL sketch_embed_photos('photo');
CREATE INDEX photo_fused_idx ON photo USING ivfexact (fused);
DELETE FROM photo WHERE id % 10 = 3;
VACUUM photo;

CREATE ROLE curator;
CREATE SCHEMA "Art & Craft" AUTHORIZATION curator;
SET ROLE curator;
CREATE TABLE "Art & Craft"."Photo" ("Id" int PRIMARY KEY, "The image" bytea);
SELECT sketch_enable('"Art & Craft"."Photo"', 'The image', 'The embedding', 'Fused', 'art', embed => false);
INSERT INTO "Art & Craft"."Photo" SELECT n, decode(:'photo', 'base64'), synthetic(n) FROM generate_series(1, 100) AS n;
RESET ROLE;
SELECT sketch_build_codebook('art', '"Art & Craft"."Photo"', 'The embedding', subspaces => 4, prototypes => 8, weight => 0.5, unit_length => false);
SET ROLE curator;
SELECT sketch_fuse_photos('"Art & Craft"."Photo"');
RESET ROLE;

CREATE TABLE plain AS SELECT n AS id, synthetic(n) AS e FROM generate_series(1, 50) AS n;
CREATE INDEX plain_e_idx ON plain USING ivfexact (e);
