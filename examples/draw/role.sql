-- The role of the page: it can read the photos, and nothing else.
SELECT 'CREATE ROLE sketch_draw LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'sketch_draw') \gexec
ALTER ROLE sketch_draw SET default_transaction_read_only = on;
GRANT SELECT ON photo TO sketch_draw;
