-- The hub correction: sketch.bank, sketch_load_bank, sketch_correct, the channel of stored photos.
\set VERBOSITY default
-- The bank of the model came with it.
SELECT model_id = sketch_current_model() AS of_model, bank_id = ('x' || encode(substring(sha256 FOR 4), 'hex'))::bit(32)::bigint AS tagged,
       sha256 = sha256(drawings) AS whole, octet_length(drawings) < 1000000 AS small
FROM sketch.bank;
SELECT bank_id FROM sketch.bank \gset

-- 300 embeddings of unit length, tagged with the model.
CREATE TABLE photo AS
SELECT n, (format('[%s]@%s', (SELECT string_agg((sin(n * i + n) / 16)::real::text, ',') FROM generate_series(1, 512) AS i),
                  lpad(to_hex(sketch_current_model()), 8, '0')))::embedding AS embedding
FROM generate_series(1, 300) AS n;
CREATE TABLE drawing AS SELECT n, embedding FROM photo WHERE n <= 20;

-- A corrected embedding has one channel more; to whatever drawing, its squared distance grows by the square of it.
ALTER TABLE photo ADD corrected embedding;
UPDATE photo SET corrected = sketch_correct(embedding);
SELECT DISTINCT sketch_dimension(embedding) AS embedding, sketch_dimension(corrected) AS corrected,
       sketch_model_id(corrected) = sketch_current_model() AS model, sketch_codebook_id(corrected) AS codebook FROM photo;
SELECT bool_and((corrected::real[])[1:512] = embedding::real[]) AS same_values, count(DISTINCT (corrected::real[])[513]) > 200 AS channels FROM photo;
SELECT max(abs((p.corrected <-> d.embedding) ^ 2 - (p.embedding <-> d.embedding) ^ 2 - (p.corrected::real[])[513] ^ 2)) < 1e-3 AS bias,
       bool_and((p.corrected <-> d.embedding) = (d.embedding <-> p.corrected)) AS symmetric
FROM photo AS p, drawing AS d;
-- Without its tag, a drawing is still one; a photo with a channel and without a tag is something else.
SELECT max(abs((p.corrected <-> d.embedding::real[]::embedding) - (p.corrected <-> d.embedding))) AS difference FROM photo AS p, drawing AS d;
SELECT p.corrected::real[]::embedding <-> d.embedding AS distance FROM photo AS p, drawing AS d LIMIT 1;
-- An embedding of a model without a bank stays as it is.
SELECT sketch_dimension(sketch_correct('[1,2,3]')), sketch_dimension(sketch_correct('[1,2,3]@00000001')), sketch_correct(NULL);

-- A codebook: its channel makes up for short fused embeddings, and corrects hubs.
SELECT sketch_build_codebook('default', 'photo') = sketch_current_codebook('default') AS built;
SELECT sketch_build_codebook('length', 'photo', hubs => 0) = sketch_current_codebook('length') AS built;
SELECT sketch_build_codebook('patent', 'photo', subspaces => 2, weight => 0.2, unit_length => false, hubs => 0) = sketch_current_codebook('patent') AS built;
SELECT sketch_build_codebook('strong', 'photo', unit_length => false, hubs => 2) = sketch_current_codebook('strong') AS built;
SELECT name, subspaces, prototypes, weight, unit_length, channel, hubs, bank_id = :bank_id AS bank, sketch_dimension(sketch_fuse(embedding, name)) AS dimension
FROM sketch.codebook JOIN sketch.codebook_name USING (codebook_id), drawing
WHERE name IN ('default', 'length', 'patent', 'strong') AND n = 1 ORDER BY name;
-- Completed, a fused embedding is as long as the photo's own.
SELECT max(abs(sqrt((SELECT sum(x ^ 2) FROM unnest(sketch_fuse(embedding, 'length')::real[]) AS x))
             - sqrt((SELECT sum(x ^ 2) FROM unnest(embedding::real[]) AS x)))) < 0.002 AS completed FROM drawing;
-- JSON there and back.
SELECT sketch_load_codebook('again', sketch_train_codebook('photo', 'embedding', 8, NULL, 0.35, true, 10000)) = sketch_current_codebook('default') AS same;

-- An index orders as the operator does: built before the correction, after it, and over both.
CREATE TABLE hub (n integer, fused embedding);
CREATE FUNCTION check_order(drawn integer) RETURNS TABLE (same boolean, by_index boolean) LANGUAGE plpgsql AS $$
DECLARE
    q embedding := (SELECT embedding FROM drawing WHERE n = drawn);
    scanned float8[];
    ordered float8[];
    plan text := '';
    line text;
BEGIN
    SET LOCAL enable_indexscan = on;
    SET LOCAL enable_seqscan = off;
    FOR line IN EXECUTE format('EXPLAIN SELECT n FROM hub ORDER BY fused <-> %L', q) LOOP plan := plan || line; END LOOP;
    EXECUTE format('SELECT array_agg(d) FROM (SELECT fused <-> %1$L AS d FROM hub ORDER BY fused <-> %1$L) AS r', q) INTO ordered;
    SET LOCAL enable_seqscan = on;
    SET LOCAL enable_indexscan = off;
    EXECUTE format('SELECT array_agg(d) FROM (SELECT fused <-> %1$L AS d FROM hub ORDER BY fused <-> %1$L) AS r', q) INTO scanned;
    RETURN QUERY SELECT scanned = ordered, plan LIKE '%hub_fused_idx%';
END
$$;
INSERT INTO hub SELECT n, embedding FROM photo WHERE n <= 100;
CREATE INDEX hub_fused_idx ON hub USING ivfexact (fused) WITH (lists = 4);
INSERT INTO hub SELECT n, corrected FROM photo WHERE n > 100;
SELECT bool_and(same), bool_and(by_index) FROM generate_series(1, 20) AS n, check_order(n);
SELECT lists, rows, visible, free, unused_pages FROM sketch_check_index('hub_fused_idx');
TRUNCATE hub;
INSERT INTO hub SELECT n, corrected FROM photo;
REINDEX INDEX hub_fused_idx;
SELECT bool_and(same), bool_and(by_index) FROM generate_series(1, 20) AS n, check_order(n);
INSERT INTO hub SELECT n + 1000, embedding FROM photo;
SELECT bool_and(same), bool_and(by_index) FROM generate_series(1, 20) AS n, check_order(n);
SELECT lists, rows, visible, free, unused_pages FROM sketch_check_index('hub_fused_idx');
-- A query without a tag, and a stored photo as the query.
UPDATE drawing SET embedding = embedding::real[]::embedding WHERE n > 10;
UPDATE drawing SET embedding = sketch_correct(embedding) WHERE n < 5;
SELECT bool_and(same), bool_and(by_index) FROM generate_series(1, 20) AS n, check_order(n);
INSERT INTO hub VALUES (0, '[1,2,3]');
DROP TABLE hub;

-- A gallery without a codebook: the trigger, and sketch_fuse_photos for photos that were there before the bank.
CREATE TABLE few (id integer PRIMARY KEY, image bytea);
INSERT INTO few SELECT 1, bytes FROM fixture WHERE name = 'photo.png';
SELECT sketch_enable('few', 'image');
INSERT INTO few SELECT 2, bytes FROM fixture WHERE name = 'plain.jpg';
SELECT id, sketch_dimension(fused) FROM few ORDER BY id;
UPDATE sketch.gallery SET bank_id = NULL WHERE relation = 'few'::regclass;
UPDATE few SET image = image;
SELECT id, sketch_dimension(fused) FROM few ORDER BY id;
SELECT sketch_fuse_photos('few');
SELECT id, sketch_dimension(fused) FROM few ORDER BY id;
SELECT bank_id = :bank_id AS bank FROM sketch.gallery WHERE relation = 'few'::regclass;
DROP TABLE few;

-- What is refused.
SELECT sketch_correct(sketch_fuse(embedding, 'default')) FROM photo LIMIT 1;
\set VERBOSITY sqlstate
SELECT sketch_build_codebook('x', 'photo', hubs => -1);
SELECT sketch_build_codebook('x', 'photo', hubs => 'NaN');
\set VERBOSITY default
CREATE TABLE elsewhere AS SELECT (format('[%s,1]@00000001', n))::embedding AS embedding FROM generate_series(1, 100) AS n;
SELECT sketch_build_codebook('x', 'elsewhere', hubs => 0.5);
SELECT sketch_load_codebook('x', sketch_train_codebook('photo', 'embedding', 8, NULL, 0.35, true, 10000) || '{"bank": 7}');
SELECT sketch_load_codebook('x', sketch_train_codebook('photo', 'embedding', 8, NULL, 0.35, true, 10000) - 'bank');
SELECT sketch_load_bank('no bank');
SELECT sketch_load_bank(substring(drawings FOR 1000)) FROM sketch.bank;
SELECT sketch_load_bank(overlay(drawings PLACING '\x01000000' FROM 17)) FROM sketch.bank;
SELECT sketch_load_bank(NULL);
SELECT sketch_load_bank(drawings) = bank_id AS there_already FROM sketch.bank;

-- A bank that someone changed is noticed by the next connection.
\c
BEGIN;
UPDATE sketch.bank SET drawings = overlay(drawings PLACING '\x7f' FROM 100000);
\set VERBOSITY terse
SELECT sketch_correct(embedding) FROM photo LIMIT 1;
\set VERBOSITY default
ROLLBACK;
DROP TABLE photo, drawing, elsewhere;
DROP FUNCTION check_order;
DELETE FROM sketch.codebook;
