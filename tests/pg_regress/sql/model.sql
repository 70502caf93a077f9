-- sketch.model: who may load a network, and which is refused.
\set VERBOSITY default
CREATE FUNCTION manifest(changes jsonb) RETURNS jsonb LANGUAGE sql STABLE AS
    $$ SELECT manifest || changes FROM sketch.model WHERE name = 'lite2-sketch-2' $$;
CREATE FUNCTION graph() RETURNS bytea LANGUAGE sql STABLE AS $$ SELECT onnx FROM sketch.model WHERE name = 'lite2-sketch-2' $$;

-- The same graph with another preparation of photos is another model; the same again is the same.
SELECT sketch_load_model('twin', graph(), manifest('{"origin": "a twin"}')) AS twin \gset
SELECT count(DISTINCT model_id) = 2 AS another, sketch_load_model('twin', graph(), manifest('{"origin": "a twin"}')) = :twin AS again,
       sketch_current_model() = :twin AS newest_is_current, sketch_load_model() = :twin AS shipped_one_not_again FROM sketch.model;
-- The network that ships, in a database that has another: beside it, and in use from then on.
SELECT sketch_update_model() = min(model_id) FILTER (WHERE name = 'lite2-sketch-2') AS there_already FROM sketch.model;
BEGIN;
DELETE FROM sketch.bank;
DELETE FROM sketch.model WHERE name = 'lite2-sketch-2';
SELECT sketch_load_model() = :twin AS not_by_itself, sketch_update_model() <> :twin AS loaded;
SELECT name, model_id = sketch_current_model() AS in_use FROM sketch.model ORDER BY created_at;
SELECT model_id = sketch_current_model() AS with_its_bank FROM sketch.bank;
ROLLBACK;
SELECT sketch_load_model('triplet', graph(), manifest('{"origin": "a twin"}'));
SET pg_sketch.model = 'lite2-sketch-2';
SELECT sketch_current_model() <> :twin AS by_name;

-- Embeddings of two models do not compare.
\set VERBOSITY terse
SELECT sketch_embed(bytes, 'lite2-sketch-2') <-> sketch_embed(bytes, 'twin') AS distance FROM fixture WHERE name = 'face.json';
\set VERBOSITY default
RESET pg_sketch.model;
DELETE FROM sketch.model WHERE model_id = :twin;

-- Broken ones.
SELECT sketch_load_model('broken', '\x00010203', manifest('{}'));
SELECT sketch_load_model('broken', '', manifest('{}'));
SELECT sketch_load_model('broken', substring(graph() FOR 1000000), manifest('{}'));
SELECT sketch_load_model('broken', graph(), '{}');
SELECT sketch_load_model('broken', graph(), manifest('{"colour": "red"}'));
SELECT sketch_load_model('broken', graph(), manifest('{"format": 2}'));
SELECT sketch_load_model('broken', graph(), manifest('{"dimension": 0}'));
SELECT sketch_load_model('broken', graph(), manifest('{"dimension": 256}'));
SELECT sketch_load_model('', graph(), manifest('{}'));
SELECT sketch_load_model(repeat('x', 64), graph(), manifest('{}'));
SELECT sketch_load_model(NULL, graph(), manifest('{}'));
-- One node of operator "Evil" from another domain; one weight that lies in /etc/passwd.
SELECT sketch_load_model('broken', '\x08083a1e0a190a017812017922044576696c3a0b636f6d2e6578616d706c6512016742021011', manifest('{}'));
SELECT sketch_load_model('broken', '\x08083a390a100a017712017922084964656e746974791201672a22080410014201776a170a086c6f636174696f6e120b2f6574632f706173737764700142021011', manifest('{}'));

-- Only a superuser, or whom he grants it to.
CREATE ROLE sketch_user;
GRANT SELECT ON fixture TO sketch_user;
SET ROLE sketch_user;
SELECT sketch_load_model('mine', '\x00', '{}');
SELECT sketch_load_model() = sketch_current_model() AS shipped_one_is_for_all;
INSERT INTO sketch.model SELECT * FROM sketch.model;
SELECT sketch_dimension(sketch_embed(bytes)) FROM fixture WHERE name = 'face.json';
RESET ROLE;
GRANT EXECUTE ON FUNCTION sketch_load_model(text, bytea, jsonb) TO sketch_user;
SET ROLE sketch_user;
SELECT sketch_load_model('mine', '\x00', '{}');
RESET ROLE;
REVOKE ALL ON fixture FROM sketch_user;
REVOKE EXECUTE ON FUNCTION sketch_load_model(text, bytea, jsonb) FROM sketch_user;
DROP ROLE sketch_user;

-- A device that is not there, and one that is none.
\c
SET pg_sketch.device = 'cuda:7';
SELECT sketch_embed(bytes) FROM fixture WHERE name = 'face.json';
SET pg_sketch.device = 'toaster';
SELECT sketch_embed(bytes) FROM fixture WHERE name = 'face.json';
SET pg_sketch.device = 'auto';
SELECT sketch_dimension(sketch_embed(bytes)) FROM fixture WHERE name = 'face.json';
SELECT value LIKE '% "lite2-sketch-2" on c%' AS device FROM sketch_status() WHERE name = 'model';
-- One thread or two, the result is the same.
SET pg_sketch.device = 'cpu';
SET pg_sketch.threads = 1;
SELECT sketch_embed(bytes) AS one FROM fixture WHERE name = 'scan.png' \gset
\c
SET pg_sketch.threads = 2;
SELECT sketch_embed(bytes) <-> :'one' < 0.001 AS same FROM fixture WHERE name = 'scan.png';
\c
DROP FUNCTION manifest, graph;

-- The library of ONNX Runtime is looked for at first use.
SET pg_sketch.onnxruntime = '/nonexistent/libonnxruntime.so';
SELECT sketch_embed(bytes) FROM fixture WHERE name = 'face.json';
RESET pg_sketch.onnxruntime;
SELECT sketch_dimension(sketch_embed(bytes)) FROM fixture WHERE name = 'face.json';
