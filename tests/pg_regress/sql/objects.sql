-- The whole surface: every object of the extension, none without a comment, none left to default volatility by accident.
\set VERBOSITY default
CREATE TEMP VIEW object AS
SELECT classid, objid, pg_describe_object(classid, objid, 0) AS object FROM pg_depend
WHERE refclassid = 'pg_extension'::regclass AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_sketch') AND deptype = 'e';
SELECT object FROM object WHERE coalesce(obj_description(objid, (SELECT relname FROM pg_class WHERE oid = classid)), '') = ''
    AND object NOT LIKE 'type sketch.%' AND object NOT LIKE 'type embedding[]' AND object NOT LIKE 'cast %' AND object NOT LIKE 'type sketch%';
SELECT p.oid::regprocedure AS function, provolatile AS volatility, proparallel AS parallel, proisstrict AS strict, prosecdef AS definer
FROM pg_proc AS p JOIN object ON classid = 'pg_proc'::regclass AND objid = p.oid ORDER BY p.oid::regprocedure::text COLLATE "C";
SELECT table_name, privilege_type FROM information_schema.table_privileges WHERE table_schema = 'sketch' AND grantee = 'PUBLIC' ORDER BY 1, 2;
-- A SECURITY DEFINER function has a search_path of its own.
SELECT count(*) AS unsafe FROM pg_proc AS p JOIN object ON classid = 'pg_proc'::regclass AND objid = p.oid
WHERE prosecdef AND NOT coalesce(proconfig::text LIKE '%search_path=pg_catalog, pg_temp%', false);
LOAD 'pg_sketch';
SELECT name, setting, unit, context, boot_val FROM pg_settings WHERE name LIKE 'pg_sketch.%' ORDER BY name COLLATE "C";
SET pg_sketch.nonesuch = 1;
SELECT name FROM sketch_status() WHERE name NOT LIKE 'model';
