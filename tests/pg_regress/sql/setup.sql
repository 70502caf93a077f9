-- Once for all tests: the extension, its network, and sample images.
\set VERBOSITY default
CREATE EXTENSION pg_sketch;
SELECT sketch_embed('[[[0,10],[0,10]]]'::bytea);        -- no model yet
SELECT sketch_load_model() = sketch_load_model() AS loaded_once;
SELECT name, model_id = sketch_current_model() AS current,
       model_id = ('x' || encode(substring(sha256 FOR 4), 'hex'))::bit(32)::bigint AS tagged,
       octet_length(onnx) BETWEEN 1000000 AND 12000000 AS size_ok,
       manifest ->> 'dimension' AS dimension
FROM sketch.model;

-- Files are read by the client, wherever the server runs.
\set photo `base64 -w0 "$FIXTURES/photo.png"`
\set jpeg `base64 -w0 "$FIXTURES/plain.jpg"`
\set webp `base64 -w0 "$FIXTURES/lossy.webp"`
\set scan `base64 -w0 "$FIXTURES/face_scan.png"`
\set face `base64 -w0 "$FIXTURES/face.json"`
CREATE TABLE fixture (name text PRIMARY KEY, bytes bytea);
INSERT INTO fixture VALUES
    ('photo.png', decode(:'photo', 'base64')),
    ('plain.jpg', decode(:'jpeg', 'base64')),
    ('lossy.webp', decode(:'webp', 'base64')),
    ('scan.png', decode(:'scan', 'base64')),
    ('face.json', decode(:'face', 'base64')),
    ('face.svg', '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100"><circle cx="50" cy="50" r="40" fill="none" stroke="black"/><path d="M30 65 Q50 80 70 65" fill="none" stroke="black"/></svg>');
