-- Who may do what: every object of the extension, by the owner of a gallery, who may write its photos, who may read it, and a
-- stranger. docs/privileges.md is the page to this.
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE ROLE sketch_owner;
CREATE ROLE sketch_writer;
CREATE ROLE sketch_reader;
CREATE ROLE sketch_stranger;
CREATE SCHEMA art AUTHORIZATION sketch_owner;
GRANT USAGE ON SCHEMA art TO PUBLIC;
GRANT SELECT ON fixture TO sketch_owner;
SET ROLE sketch_owner;
CREATE TABLE art.photo (id int PRIMARY KEY, secret text, image bytea);
INSERT INTO art.photo SELECT 1, 'hidden', bytes FROM fixture WHERE name = 'photo.png';
SELECT sketch_enable('art.photo', 'image');
CREATE INDEX photo_fused ON art.photo USING ivfexact (fused);
CREATE TABLE art.embedding AS
SELECT n, (format('[%s,1]@%s', n, lpad(to_hex(sketch_current_model()), 8, '0')))::embedding AS e FROM generate_series(1, 20) AS n;
CREATE TABLE art.trained AS SELECT sketch_train_codebook('art.embedding', 'e', 1, 2, 0.2, true, 100) AS codebook;
SELECT sketch_load_codebook('o', codebook) = sketch_current_codebook('o') AS loaded FROM art.trained;
GRANT SELECT ON art.trained TO PUBLIC;
GRANT SELECT ON art.photo, art.embedding TO sketch_reader;
GRANT SELECT (id, image), UPDATE (image), INSERT (id, image) ON art.photo TO sketch_writer;
RESET ROLE;

-- What each of them tries.
CREATE TABLE walk (n serial, object text, call text);
CREATE TABLE walked (who name, n int, outcome text);
GRANT SELECT ON walk TO PUBLIC;
GRANT INSERT ON walked TO PUBLIC;
CREATE FUNCTION attempt(call text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE call;
    RETURN 'ok';
EXCEPTION
    WHEN insufficient_privilege THEN RETURN 'denied';
    WHEN OTHERS THEN RETURN SQLERRM;
END $$;
INSERT INTO walk (object, call) VALUES
    ('photo_embed(bytea)', $$SELECT photo_embed(NULL)$$),
    ('photo_embed(bytea,text)', $$SELECT photo_embed(NULL, NULL)$$),
    ('sketch_embed(bytea)', $$SELECT sketch_embed('[[[0,9],[0,9]]]'::bytea)$$),
    ('sketch_embed(bytea,text)', $$SELECT sketch_embed('[[[0,9],[0,9]]]'::bytea, 'lite2-sketch-2')$$),
    ('sketch_embed(jsonb)', $$SELECT sketch_embed('[[[0,9],[0,9]]]'::jsonb)$$),
    ('sketch_embed(jsonb,text)', $$SELECT sketch_embed('[[[0,9],[0,9]]]'::jsonb, 'lite2-sketch-2')$$),
    ('sketch_embed(text)', $$SELECT sketch_embed('[[[0,9],[0,9]]]'::text)$$),
    ('sketch_embed(text,text)', $$SELECT sketch_embed('[[[0,9],[0,9]]]'::text, 'lite2-sketch-2')$$),
    ('sketch_embed_support(internal)', $$SELECT sketch_embed_support(1)$$),
    ('sketch_embedding_in(cstring)', $$SELECT '[1]'::embedding$$),
    ('sketch_embedding_out(embedding)', $$SELECT '[1]'::embedding::text$$),
    ('sketch_embedding_recv(internal)', $$SELECT sketch_embedding_recv(1)$$),
    ('sketch_embedding_send(embedding)', $$SELECT sketch_embedding_send('[1]')$$),
    ('sketch_from_array(real[])', $$SELECT '{1}'::real[]::embedding$$),
    ('sketch_from_array(double precision[])', $$SELECT '{1}'::double precision[]::embedding$$),
    ('sketch_to_array(embedding)', $$SELECT '[1]'::embedding::real[]$$),
    ('sketch_dimension(embedding)', $$SELECT sketch_dimension('[1]')$$),
    ('sketch_model_id(embedding)', $$SELECT sketch_model_id('[1]')$$),
    ('sketch_codebook_id(embedding)', $$SELECT sketch_codebook_id('[1]')$$),
    ('sketch_l2_distance(embedding,embedding)', $$SELECT '[1]'::embedding <-> '[2]'$$),
    ('sketch_cosine_distance(embedding,embedding)', $$SELECT '[1]'::embedding <=> '[2]'$$),
    ('sketch_negative_inner_product(embedding,embedding)', $$SELECT '[1]'::embedding <#> '[2]'$$),
    ('avg(embedding)', $$SELECT avg('[1]'::embedding)$$),
    ('sketch_avg_add(double precision[],embedding)', $$SELECT sketch_avg_add('{0,0,0}', '[1]')$$),
    ('sketch_avg_combine(double precision[],double precision[])', $$SELECT sketch_avg_combine('{0,0,0}', '{1,0,0,1}')$$),
    ('sketch_avg(double precision[])', $$SELECT sketch_avg('{1,0,0,1}')$$),
    ('sketch_create_vector_casts()', $$SELECT sketch_create_vector_casts()$$),
    ('sketch_distance(embedding,embedding)', $$SELECT sketch_distance('[1]'::embedding, '[2]'::embedding)$$),
    ('sketch_distance(embedding,bytea)', $$SELECT sketch_distance('[1]'::embedding, NULL::bytea)$$),
    ('sketch_distance(embedding,jsonb)', $$SELECT sketch_distance('[1]'::embedding, NULL::jsonb)$$),
    ('sketch_distance(embedding,text)', $$SELECT sketch_distance('[1]'::embedding, NULL::text)$$),
    ('sketch_ivfexact_handler(internal)', $$SELECT sketch_ivfexact_handler(1)$$),
    ('sketch_status()', $$SELECT count(*) FROM sketch_status()$$),
    ('sketch_library_version()', $$SELECT sketch_library_version() <> ''$$),
    ('sketch_stat_counters()', $$SELECT count(*) FROM sketch_stat_counters()$$),
    ('view sketch_stat', $$SELECT count(*) FROM sketch_stat$$),
    ('sketch_stat_reset()', $$SELECT sketch_stat_reset()$$),
    ('sketch_index_scan()', $$SELECT count(*) FROM sketch_index_scan()$$),
    ('sketch_current_model()', $$SELECT sketch_current_model()$$),
    ('sketch_load_model()', $$SELECT sketch_load_model()$$),
    ('sketch_update_model()', $$SELECT sketch_update_model()$$),
    ('sketch_load_model(text,bytea,jsonb)', $$SELECT sketch_load_model('x', '\x00', '{}')$$),
    ('sketch_current_codebook(text,text)', $$SELECT sketch_current_codebook('x', 'sketch_owner')$$),
    ('sketch_correct(embedding)', $$SELECT sketch_correct('[1]')$$),
    ('sketch_load_bank(bytea)', $$SELECT sketch_load_bank('x')$$),
    ('sketch_train_codebook(regclass,text,integer,integer,real,boolean,integer,real)', $$SELECT sketch_train_codebook('art.embedding', 'e', 1, 2, 0.2, true, 100)$$),
    ('sketch_load_codebook(text,jsonb,text)', $$SELECT sketch_load_codebook('x', (SELECT codebook FROM art.trained), 'sketch_owner')$$),
    ('sketch_export_codebook(text,text)', $$SELECT sketch_export_codebook('o', 'sketch_owner')$$),
    ('sketch_build_codebook(text,regclass,text,integer,integer,double precision,boolean,integer,text,double precision)', $$SELECT sketch_build_codebook('x', 'art.embedding', 'e', 1, 2)$$),
    ('sketch_fuse(embedding,text,text)', $$SELECT sketch_fuse(e, 'o', 'sketch_owner') FROM art.embedding LIMIT 1$$),
    ('sketch_check_index(regclass)', $$SELECT count(*) FROM sketch_check_index('art.photo_fused')$$),
    ('sketch_measure_recall(regclass,embedding[],double precision,integer)', $$SELECT count(*) FROM sketch_measure_recall('art.photo_fused', ARRAY[sketch_from_array(array_fill(0.1::real, ARRAY[512]))])$$),
    ('sketch_trigger()', $$SELECT sketch_trigger()$$),
    ('sketch_gallery(regclass)', $$SELECT count(*) FROM sketch_gallery('art.photo')$$),
    ('table sketch.model', $$SELECT count(*) FROM sketch.model$$),
    ('table sketch.bank', $$SELECT count(*) FROM sketch.bank$$),
    ('table sketch.bank', $$DELETE FROM sketch.bank$$),
    ('table sketch.model', $$DELETE FROM sketch.model$$),
    ('table sketch.codebook', $$SELECT count(*) FROM sketch.codebook$$),
    ('table sketch.codebook', $$DELETE FROM sketch.codebook$$),
    ('table sketch.codebook_name', $$SELECT count(*) FROM sketch.codebook_name$$),
    ('table sketch.codebook_name', $$DELETE FROM sketch.codebook_name$$),
    ('table sketch.prototype', $$SELECT count(*) FROM sketch.prototype$$),
    ('table sketch.prototype', $$DELETE FROM sketch.prototype$$),
    ('table sketch.codebook_name', $$INSERT INTO sketch.codebook_name SELECT current_user, 'y', codebook_id FROM sketch.codebook$$),
    ('table sketch.codebook_name', $$UPDATE sketch.codebook_name SET owner = current_user$$),
    ('table sketch.gallery', $$SELECT count(*) FROM sketch.gallery$$),
    ('table sketch.gallery', $$DELETE FROM sketch.gallery$$),
    ('table sketch.gallery', $$UPDATE sketch.gallery SET codebook_owner = current_user$$),
    ('view sketch.galleries', $$SELECT 1 / count(*) FROM sketch.galleries$$),
    ('sketch.column_name(sketch.regcolumn)', $$SELECT sketch.column_name(image) FROM sketch.gallery$$),
    ('sketch.column_number(sketch.regcolumn)', $$SELECT sketch.column_number(image) FROM sketch.gallery$$),
    ('sketch.regcolumn_in(cstring)', $$SELECT 'art.photo.image'::sketch.regcolumn$$),
    ('sketch.regcolumn_out(sketch.regcolumn)', $$SELECT image::text FROM sketch.gallery$$),
    ('sketch_queue_trigger()', $$SELECT sketch_queue_trigger()$$),
    ('sketch.wake_worker()', $$SELECT sketch.wake_worker()$$),
    ('sketch.row_name(oid,tid)', $$SELECT 1 / count(sketch.row_name('art.photo'::regclass, ctid)) FROM art.photo$$),
    ('table sketch.queue', $$SELECT count(*) FROM sketch.queue$$),
    ('table sketch.queue', $$DELETE FROM sketch.queue$$),
    ('table sketch.queue', $$INSERT INTO sketch.queue SELECT 'art.photo'::regclass, 'art.photo'::regclass, '(0,1)', now(), 0, now()$$),
    ('view sketch.queued', $$SELECT count(*) FROM sketch.queued$$),
    ('sketch_gallery_status(regclass)', $$SELECT count(*) FROM sketch_gallery_status('art.photo')$$),
    ('sketch_wait(regclass,interval)', $$SELECT sketch_wait('art.photo', '0 s')$$),
    ('sketch_maintain_step(regclass,jsonb)', $$SELECT sketch_maintain_step('art.photo', '"index"')$$),
    ('sketch_maintain(regclass)', $$CALL sketch_maintain('art.photo')$$),
    ('sketch.forget_dropped()', $$SELECT sketch.forget_dropped()$$),
    ('sketch_embed_batch(regclass,integer,jsonb)', $$SELECT sketch_embed_batch('art.photo', 10, NULL)$$),
    ('search', $$SELECT id FROM art.photo ORDER BY sketch_distance(fused, '[[[0,9],[0,9]]]'::bytea) LIMIT 1$$),
    ('insert', $$INSERT INTO art.photo (id, image) VALUES ((random() * 1e9)::int, NULL)$$),
    ('update', $$UPDATE art.photo SET image = image$$),
    ('update of fused', $$UPDATE art.photo SET fused = NULL$$),
    ('sketch_fuse_photos(regclass)', $$SELECT sketch_fuse_photos('art.photo')$$),
    ('sketch_embed_photos(regclass,integer)', $$CALL sketch_embed_photos('art.photo')$$),
    ('sketch_enable(regclass,name,name,name,text,boolean,text)', $$SELECT sketch_enable('art.photo', 'image')$$),
    ('sketch_enable(regclass,name,name,name,text,boolean,text)', $$SELECT sketch_enable('art.photo', 'image', mode => 'background')$$),
    ('sketch_disable(regclass)', $$SELECT sketch_disable('art.photo')$$);
-- Nothing is left out.
SELECT pg_describe_object(classid, objid, 0) AS left_out FROM pg_depend
WHERE refclassid = 'pg_extension'::regclass AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_sketch') AND deptype = 'e'
    AND classid IN ('pg_proc'::regclass, 'pg_class'::regclass)
    AND regexp_replace(pg_describe_object(classid, objid, 0), '^(function|procedure) ', '') NOT IN (SELECT object FROM walk)
ORDER BY 1;

SET ROLE sketch_stranger;
INSERT INTO walked SELECT 'stranger', n, attempt(call) FROM walk ORDER BY n;
SET ROLE sketch_reader;
INSERT INTO walked SELECT 'reader', n, attempt(call) FROM walk ORDER BY n;
SET ROLE sketch_writer;
INSERT INTO walked SELECT 'writer', n, attempt(call) FROM walk ORDER BY n;
SET ROLE sketch_owner;
INSERT INTO walked SELECT 'owner', n, attempt(call) FROM walk ORDER BY n;
RESET ROLE;
\pset format unaligned
SELECT call, max(outcome) FILTER (WHERE who = 'stranger') AS stranger, max(outcome) FILTER (WHERE who = 'reader') AS reader,
       max(outcome) FILTER (WHERE who = 'writer') AS writer, max(outcome) FILTER (WHERE who = 'owner') AS owner
FROM walk JOIN walked USING (n) GROUP BY n, call ORDER BY n;
-- What a stranger could load is its own.
SELECT DISTINCT owner FROM sketch.codebook_name ORDER BY owner;

DROP TABLE walk, walked;
DROP FUNCTION attempt;
DROP SCHEMA art CASCADE;
DELETE FROM sketch.codebook;
REVOKE ALL ON fixture FROM sketch_owner;
DROP ROLE sketch_owner, sketch_writer, sketch_reader, sketch_stranger;
