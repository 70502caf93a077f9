-- A library in shared_preload_libraries stays in memory until the server restarts, even if a package has replaced its file.
-- Nothing below works with an older library.
DO $$
DECLARE
    library text;
    wanted text;
BEGIN
    SELECT extversion INTO STRICT wanted FROM pg_extension WHERE extname = 'pg_sketch';
    BEGIN
        CREATE FUNCTION sketch_library_version() RETURNS text
            LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'library_version_wrapper';
        COMMENT ON FUNCTION sketch_library_version() IS 'version of the library; that of the SQL is in pg_extension';
        library := sketch_library_version();
    EXCEPTION WHEN undefined_function THEN
        library := '0.1.0';
    END;
    IF string_to_array(library, '.')::int[] < string_to_array(wanted, '.')::int[] THEN
        RAISE EXCEPTION 'library of pg_sketch is older than version % of the extension', wanted
            USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = format('The library has version %s.', library),
                HINT = 'Install pg_sketch again; if shared_preload_libraries contains pg_sketch, restart the server.';
    END IF;
END
$$;
