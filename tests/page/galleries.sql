-- Galleries beside the demo's own, for the tests of the page. A search_path selects one.

CREATE SCHEMA many;
-- 10,000 photos: those of the demo, again and again.
CREATE TABLE many.photo AS
SELECT row_number() OVER () AS id, name, image, embedding, fused
FROM (SELECT name, (SELECT image FROM public.photo ORDER BY length(image) LIMIT 1) AS image, embedding, fused
      FROM public.photo CROSS JOIN generate_series(1, 33) ORDER BY random() LIMIT 10000) AS copies;

CREATE SCHEMA empty;
CREATE TABLE empty.photo (LIKE public.photo);

GRANT USAGE ON SCHEMA many, empty TO sketch_draw;
GRANT SELECT ON many.photo, empty.photo TO sketch_draw;
ANALYZE;
