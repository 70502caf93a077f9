-- sketch_embed and photo_embed: what they take, what they return.
\set VERBOSITY default
SELECT name, sketch_dimension(e) AS dimension, sketch_model_id(e) = sketch_current_model() AS model,
       sketch_codebook_id(e) AS codebook, abs(1 - (e <-> array_fill(0::real, ARRAY[512])::embedding)) < 0.001 AS unit_length
FROM fixture, LATERAL (SELECT CASE WHEN name IN ('photo.png', 'plain.jpg', 'lossy.webp') THEN photo_embed(bytes)
                                   ELSE sketch_embed(bytes) END AS e) AS embedded
ORDER BY name COLLATE "C";

-- The same strokes as jsonb, as text, as points, as one ndjson object and as a data URI are the same drawing.
WITH face AS (SELECT convert_from(bytes, 'UTF8')::jsonb AS strokes, sketch_embed(bytes) AS e FROM fixture WHERE name = 'face.json'),
svg AS (SELECT bytes, sketch_embed(bytes) AS e FROM fixture WHERE name = 'face.svg')
SELECT 'jsonb' AS form, e <-> sketch_embed(strokes) = 0 AS same FROM face
UNION ALL SELECT 'ndjson object', e <-> sketch_embed(jsonb_build_object('word', 'face', 'drawing', strokes)) = 0 FROM face
UNION ALL SELECT 'points', e <-> sketch_embed((
    SELECT jsonb_agg((SELECT jsonb_agg(jsonb_build_object('x', x, 'y', y) ORDER BY i)
        FROM ROWS FROM (jsonb_array_elements(stroke -> 0), jsonb_array_elements(stroke -> 1)) WITH ORDINALITY AS p (x, y, i)) ORDER BY n)
    FROM jsonb_array_elements(strokes) WITH ORDINALITY AS s (stroke, n))) = 0 FROM face
UNION ALL SELECT 'data URI as text', e <-> sketch_embed(convert_to('data:image/svg+xml;base64,' || translate(encode(bytes, 'base64'), E'\n', ''), 'UTF8')) = 0 FROM svg
UNION ALL SELECT 'data URI as jsonb', e <-> sketch_embed(to_jsonb('data:image/svg+xml;base64,' || translate(encode(bytes, 'base64'), E'\n', ''))) = 0 FROM svg;

-- A sketch and a photo of the same bytes are not the same: the network knows both domains.
SELECT sketch_embed(bytes) <-> photo_embed(bytes) > 0.01 AS domains_differ FROM fixture WHERE name = 'scan.png';

-- NULL in, NULL out.
SELECT sketch_embed(NULL::bytea), sketch_embed(NULL::jsonb), photo_embed(NULL), sketch_embed('\x00'::bytea, NULL);

-- Every form of a drawing is the same drawing to sketch_distance. What has no type is text.
PREPARE untyped AS SELECT sketch_distance(sketch_embed(bytes), $1), sketch_embed(bytes) <-> sketch_embed($2) FROM fixture WHERE name = 'face.json';
SELECT parameter_types FROM pg_prepared_statements WHERE name = 'untyped';
SELECT convert_from(bytes, 'UTF8') AS face FROM fixture WHERE name = 'face.json' \gset
EXECUTE untyped(:'face', :'face');
SELECT sketch_distance(e, :'face'::jsonb), sketch_distance(e, :'face'), e <-> sketch_embed(:'face', 'lite2-sketch-2') AS named
FROM fixture, sketch_embed(bytes) AS e WHERE name = 'face.json';
DEALLOCATE untyped;

-- By the name of a model.
SELECT sketch_embed(bytes) <-> sketch_embed(bytes, 'lite2-sketch-2') AS named FROM fixture WHERE name = 'face.json';
SELECT sketch_embed(bytes, 'nonesuch') FROM fixture WHERE name = 'face.json';
SELECT photo_embed(bytes, 'nonesuch') FROM fixture WHERE name = 'photo.png';
SET pg_sketch.model = 'nonesuch';
SELECT sketch_embed(bytes) FROM fixture WHERE name = 'face.json';
RESET pg_sketch.model;

-- What is no drawing.
SELECT sketch_embed(''::bytea);
SELECT sketch_embed('\x00010203'::bytea);
SELECT sketch_embed('hello'::bytea);
SELECT sketch_embed('[]'::jsonb);
SELECT sketch_embed('{"a": 1}'::jsonb);
SELECT sketch_embed('"hello"'::jsonb);
SELECT sketch_embed('[[[1,2,3],[1,2]]]'::jsonb);
SELECT sketch_embed('[[[1,1e999],[1,2]]]'::jsonb);
SELECT sketch_embed('[[[1,NaN],[1,2]]]'::bytea);
SELECT sketch_embed('[[[5,5],[5,5]]]'::jsonb);                       -- one dot
SELECT sketch_embed('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"/>'::bytea);
SELECT sketch_embed('data:text/plain,hello'::bytea);
SELECT photo_embed('[[[0,10],[0,10]]]'::bytea);
SELECT photo_embed('GIF89a'::bytea);

-- Cut short at every fifth byte, a photo is an error and never a guess.
CREATE FUNCTION outcome(query text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE query;
    RETURN 'embedded';
EXCEPTION WHEN OTHERS THEN
    RETURN 'error';
END $$;
SELECT name, count(*) > 10 AS tried, count(*) FILTER (WHERE outcome(format('SELECT photo_embed(%L::bytea)', substring(bytes FOR length))) = 'error') = count(*) AS all_refused
FROM fixture, generate_series(0, octet_length(bytes) - 20, 5) AS length WHERE name IN ('photo.png', 'plain.jpg', 'lossy.webp')
GROUP BY name ORDER BY name COLLATE "C";
DROP FUNCTION outcome;
