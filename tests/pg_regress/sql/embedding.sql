-- The type: text, binary, arrays, facts, storage.
\set VERBOSITY default
SELECT '[1,2.5,-0.1]'::embedding;
SELECT ' [ 1 , 2 ]@0000000a '::embedding;
SELECT '[1,2]@0000000a/ffffffff'::embedding;
SELECT '[65504,6e-8,0,-0]'::embedding;
SELECT NULL::embedding;

-- What is no embedding.
SELECT ''::embedding;
SELECT '[]'::embedding;
SELECT '[1,2'::embedding;
SELECT '[1,,2]'::embedding;
SELECT '[1,two]'::embedding;
SELECT '[1,NaN]'::embedding;
SELECT '[65520]'::embedding;
SELECT '[1e999]'::embedding;
SELECT '[1]@xyz'::embedding;
SELECT '[1]@0000000a/123456789'::embedding;
SELECT '[1] and more'::embedding;
SELECT ('[' || repeat('0,', 16000) || '0]')::embedding;

-- Every half-precision value prints as text that reads back as itself.
SELECT count(*) AS values, count(*) FILTER (WHERE e::text::embedding::text = e::text AND e::text::embedding <-> e = 0) AS same
FROM (SELECT ARRAY[n::real / 37, -1.0 / n, n * 31.0]::real[]::embedding AS e FROM generate_series(1, 2000) AS n) AS v;

-- Arrays.
SELECT ARRAY[1, 2.5]::real[]::embedding;
SELECT '[1,2.5]@0000000a'::embedding::real[];
SELECT ARRAY[1, 2.5]::double precision[]::embedding;
SELECT ARRAY['1e99']::double precision[]::embedding;
SELECT ARRAY[1, NULL]::real[]::embedding;
SELECT ARRAY[]::real[]::embedding;
SELECT ARRAY['Infinity']::real[]::embedding;
SELECT array_fill(0::real, ARRAY[16001])::embedding;
SELECT sketch_dimension(array_fill(0::real, ARRAY[16000])::embedding);

-- Facts.
SELECT sketch_dimension('[1,2,3]'), sketch_model_id('[1]@0000000a'), sketch_codebook_id('[1]@0000000a/000000ff');
SELECT sketch_dimension(NULL), sketch_model_id('[1]'), sketch_codebook_id('[1]@0000000a');

-- Binary form, there and back through a file of COPY.
CREATE TEMP TABLE sent (e embedding);
INSERT INTO sent VALUES ('[1,-0.5]@0000000a/000000ff'), (NULL), ('[3]'), (array_fill(0.25::real, ARRAY[512])::embedding);
SELECT sketch_embedding_send('[1,-0.5]@0000000a/000000ff');
CREATE TEMP TABLE received (e embedding);
\copy sent TO PROGRAM 'cat > "$RESULTS/embedding.copy"' (FORMAT binary)
\copy received FROM PROGRAM 'cat "$RESULTS/embedding.copy"' (FORMAT binary)
SELECT count(*) AS rows, count(*) FILTER (WHERE s.e::text IS NOT DISTINCT FROM r.e::text) AS same
FROM (SELECT e, row_number() OVER () FROM sent) AS s JOIN (SELECT e, row_number() OVER () FROM received) AS r USING (row_number);

-- 512 dimensions stay in the row, beside a photo that does not.
CREATE TEMP TABLE stored (image bytea, e embedding, f embedding);
ALTER TABLE stored ALTER image SET STORAGE external;
INSERT INTO stored SELECT convert_to(repeat('x', 20000), 'UTF8'), v::embedding, v::embedding
FROM (SELECT array_agg(sin(i)::real) AS v FROM generate_series(1, 512) AS i) AS a;
SELECT pg_column_size(e) AS bytes, pg_relation_size('stored') > 0 AS in_row,
       (SELECT count(*) FROM stored WHERE pg_column_size(f) = 1040) AS plain FROM stored;
SELECT e <-> f AS distance FROM stored;

-- Bytes that a cast makes an embedding of are looked at before they are used.
CREATE CAST (bytea AS embedding) WITHOUT FUNCTION;
SELECT sketch_dimension('\x00'::bytea::embedding);
SELECT '\xff7f000000000000000000000000'::bytea::embedding;
SELECT '\x0100010000000000000000000000'::bytea::embedding;
DROP CAST (bytea AS embedding);

-- Long input is cut in messages, and tags are digits alone.
SELECT ('[' || repeat('x', 1000) || ']')::embedding;
SELECT ('[1] ' || repeat('é', 1000))::embedding;
SELECT '[1]@+0000001'::embedding;
