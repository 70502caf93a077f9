-- Bytes that want to hurt: each ends in its own ERROR, with less work than an ordinary query and within 200 MB.
\set VERBOSITY default
\set bomb `python3 "$PG_ABS_SRCDIR/data/bomb.py" | base64 -w0`
CREATE TABLE hostile (name text, drawing bytea);
INSERT INTO hostile VALUES
    ('30000 x 30000 PNG', decode(:'bomb', 'base64')),
    ('33 MB of zeros', convert_to(repeat('0', 33 << 20), 'UTF8')),
    ('10 million coordinates', convert_to('[[[' || repeat('1,', 9999999) || '1],[1]]]', 'UTF8')),
    ('10 million brackets', convert_to(repeat('[', 10000000), 'UTF8')),
    ('NaN', '[[[NaN,1],[1,2]]]'),
    ('infinity', '[[[1e400,1],[1,2]]]'),
    ('external entity', '<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg xmlns="http://www.w3.org/2000/svg"><desc>&x;</desc></svg>'),
    ('external image', '<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd" width="9" height="9"/></svg>'),
    ('external use', '<svg xmlns="http://www.w3.org/2000/svg"><use href="http://example.com/a.svg#b"/></svg>'),
    ('external fill', '<svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0H9V9" fill="url(http://example.com/a.svg#b)"/></svg>'),
    ('filter', '<svg xmlns="http://www.w3.org/2000/svg"><filter id="f"><feTurbulence/></filter><path d="M0 0H9V9" filter="url(#f)"/></svg>');
INSERT INTO hostile SELECT 'billion laughs', convert_to('<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY a "ha">'
        || string_agg(format('<!ENTITY %s "%s">', chr(98 + n), repeat('&' || chr(97 + n) || ';', 10)), '' ORDER BY n)
        || ']><svg xmlns="http://www.w3.org/2000/svg"><desc>&k;</desc></svg>', 'UTF8')
FROM generate_series(0, 9) AS n;
INSERT INTO hostile SELECT 'use of use of use', convert_to('<svg xmlns="http://www.w3.org/2000/svg"><g id="a0"><path d="M0 0H9V9"/></g>'
        || string_agg(format('<g id="a%s">%s</g>', n, repeat(format('<use href="#a%s"/>', n - 1), 10)), '' ORDER BY n) || '</svg>', 'UTF8')
FROM generate_series(1, 9) AS n;
INSERT INTO hostile SELECT 'deep SVG', convert_to('<svg xmlns="http://www.w3.org/2000/svg">' || repeat('<g>', 100000) || repeat('</g>', 100000) || '</svg>', 'UTF8');
INSERT INTO hostile SELECT 'truncated PNG', substring(bytes FOR 400) FROM fixture WHERE name = 'photo.png';
INSERT INTO hostile SELECT 'blank PNG', decode('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mP8/x8AAwMCAO+ip1sAAAAASUVORK5CYII=', 'base64');

-- Peak memory of this connection in MB.
CREATE FUNCTION peak() RETURNS numeric LANGUAGE sql VOLATILE AS
    $$ SELECT (regexp_match(pg_read_file('/proc/self/status'), 'VmHWM:\s+(\d+) kB'))[1]::numeric / 1024 $$;
-- CPU time of this connection's threads, in ticks of 10 ms: that of the clock would depend on what else runs.
CREATE FUNCTION work() RETURNS numeric LANGUAGE sql VOLATILE AS
    $$ SELECT s[12]::numeric + s[13]::numeric FROM regexp_split_to_array(regexp_replace(pg_read_file('/proc/self/stat'), '^.*\) ', ''), ' ') AS s $$;
-- What an ordinary query of a second or so takes here.
SELECT work() AS before \gset
SELECT count(*) FROM (SELECT sha256(n::text::bytea) FROM generate_series(1, 1000000) AS n OFFSET 0) AS s;
SELECT work() - :before AS ordinary \gset
CREATE FUNCTION attack(drawing bytea, ordinary numeric, OUT error text, OUT hint text, OUT quick boolean, OUT small boolean) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    memory numeric := peak();
    started numeric := work();
BEGIN
    BEGIN
        PERFORM sketch_embed(drawing);
        error := 'none';
    EXCEPTION WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
        error := SQLSTATE || ' ' || SQLERRM;
    END;
    quick := work() - started < ordinary;
    small := peak() - memory < 200;
END $$;
SELECT sketch_dimension(sketch_embed(bytes)) FROM fixture WHERE name = 'face.json';
\pset format unaligned
SELECT name, a.* FROM hostile, LATERAL attack(drawing, :ordinary) AS a;
-- As a photo, too.
SELECT photo_embed(drawing) FROM hostile WHERE name = '30000 x 30000 PNG';
-- And as jsonb, which is refused by its size before it becomes text.
SET pg_sketch.max_image_size = '1MB';
SELECT sketch_embed(jsonb_agg(n)) FROM generate_series(1, 200000) AS n;
RESET pg_sketch.max_image_size;
-- A limit that the user may not raise.
CREATE ROLE sketch_drawer;
SET ROLE sketch_drawer;
SET pg_sketch.max_image_size = '1GB';
SET pg_sketch.max_image_pixels = 2000000000;
SET pg_sketch.onnxruntime = '/tmp/evil.so';
RESET ROLE;
DROP ROLE sketch_drawer;
-- The connection is alive and right.
SELECT sketch_dimension(sketch_embed(bytes)) FROM fixture WHERE name = 'scan.png';
DROP TABLE hostile;
DROP FUNCTION attack, peak, work;
