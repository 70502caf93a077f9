-- Galleries: tables of photos with an embedding, a fused embedding, and a trigger that keeps both.

-- A column of a table, stored by number and printed by name, as regclass does for tables. A rename needs no action, and a
-- dump holds names, which a restore turns into the numbers of the new table: they differ after dropped columns. Plain
-- names would need an event trigger on every ALTER TABLE; plain numbers would be wrong after a restore.
CREATE TYPE sketch.regcolumn;

CREATE FUNCTION sketch.regcolumn_in(cstring) RETURNS sketch.regcolumn
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'regcolumn_in_wrapper';
COMMENT ON FUNCTION sketch.regcolumn_in(cstring) IS 'I/O';
CREATE FUNCTION sketch.regcolumn_out(sketch.regcolumn) RETURNS cstring
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'regcolumn_out_wrapper';
COMMENT ON FUNCTION sketch.regcolumn_out(sketch.regcolumn) IS 'I/O';

CREATE TYPE sketch.regcolumn (
    INPUT = sketch.regcolumn_in,
    OUTPUT = sketch.regcolumn_out,
    LIKE = pg_catalog.int8
);
COMMENT ON TYPE sketch.regcolumn IS 'column of a table: table.column';

CREATE FUNCTION sketch.column_name(sketch.regcolumn) RETURNS name
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'column_name_wrapper';
COMMENT ON FUNCTION sketch.column_name(sketch.regcolumn) IS 'name of a column, NULL if it is gone';

CREATE FUNCTION sketch.column_number(sketch.regcolumn) RETURNS smallint
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'column_number_wrapper';
COMMENT ON FUNCTION sketch.column_number(sketch.regcolumn) IS 'number of a column, its pg_attribute.attnum';

-- Only sketch_enable and sketch_disable write it, for the owner of the table. The codebook is a name without a foreign
-- key: it is built once there are enough photos, and the newest of that name is in use.
CREATE TABLE sketch.gallery (
    relation  regclass PRIMARY KEY,
    image     sketch.regcolumn NOT NULL,
    embedding sketch.regcolumn NOT NULL,
    fused     sketch.regcolumn NOT NULL,
    codebook  text NOT NULL,
    codebook_owner name NOT NULL,
    model_id  bigint NOT NULL REFERENCES sketch.model
);
COMMENT ON TABLE sketch.gallery IS 'tables that sketch_enable prepared';
COMMENT ON COLUMN sketch.gallery.image IS 'the photos, of type bytea';
COMMENT ON COLUMN sketch.gallery.embedding IS 'what the network returns for the photo';
COMMENT ON COLUMN sketch.gallery.fused IS 'embedding fused with the codebook; what drawings are compared with';
COMMENT ON COLUMN sketch.gallery.codebook IS 'name of the codebook; the newest of that name and owner is in use';
COMMENT ON COLUMN sketch.gallery.codebook_owner IS 'role whose codebook it is: the owner of the table when it was enabled';
COMMENT ON COLUMN sketch.gallery.model_id IS 'model of its photos; sketch_embed_photos, called by the owner, moves the gallery to the model in use';
-- Names of tables and columns are public in pg_catalog, too; a pg_dump by any role reads this table.
GRANT SELECT ON sketch.gallery TO PUBLIC;

-- Leaves out temporary tables, and rows that a drop left behind while event triggers were off.
SELECT pg_catalog.pg_extension_config_dump('sketch.gallery',
    'WHERE EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid OPERATOR(pg_catalog.=) relation AND relpersistence OPERATOR(pg_catalog.<>) ''t'') '
    'AND sketch.column_name(image) IS NOT NULL AND sketch.column_name(embedding) IS NOT NULL AND sketch.column_name(fused) IS NOT NULL');

CREATE VIEW sketch.galleries AS
SELECT relation, sketch.column_name(image) AS image_column, sketch.column_name(embedding) AS embedding_column,
       sketch.column_name(fused) AS fused_column, codebook, codebook_owner, model_id
FROM sketch.gallery
WHERE pg_catalog.has_table_privilege(relation, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
   OR pg_catalog.has_any_column_privilege(relation, 'SELECT, INSERT, UPDATE, REFERENCES');
GRANT SELECT ON sketch.galleries TO PUBLIC;
COMMENT ON VIEW sketch.galleries IS 'galleries on which the user has a privilege';

CREATE FUNCTION sketch_trigger() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'sketch_trigger_wrapper';
COMMENT ON FUNCTION sketch_trigger() IS 'embed and fuse a new photo of a gallery';

-- Deletes the galleries whose table or column is gone. SECURITY DEFINER, because the role that drops may not write
-- sketch.gallery. Event triggers can be off, and temporary tables end without one, so every reader ignores such a row until
-- the next DROP or sketch_enable deletes it.
CREATE FUNCTION sketch.forget_dropped() RETURNS event_trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM sketch.gallery
    WHERE sketch.column_name(image) IS NULL OR sketch.column_name(embedding) IS NULL OR sketch.column_name(fused) IS NULL;
END
$$;
COMMENT ON FUNCTION sketch.forget_dropped() IS 'event trigger: delete galleries with their tables and columns';

CREATE EVENT TRIGGER pg_sketch_forget_dropped ON sql_drop EXECUTE FUNCTION sketch.forget_dropped();
COMMENT ON EVENT TRIGGER pg_sketch_forget_dropped IS 'delete galleries with their tables and columns';

CREATE FUNCTION sketch_gallery(photos regclass)
    RETURNS TABLE (image_column text, embedding_column text, fused_column text, codebook text, codebook_owner text)
    LANGUAGE c STABLE STRICT PARALLEL SAFE ROWS 1 AS 'MODULE_PATHNAME', 'sketch_gallery_wrapper';
COMMENT ON FUNCTION sketch_gallery(regclass) IS 'columns and codebook of a table that sketch_enable prepared';

CREATE FUNCTION sketch_enable(photos regclass, image_column name, embedding_column name DEFAULT 'embedding',
                              fused_column name DEFAULT 'fused', codebook text DEFAULT NULL,
                              embed boolean DEFAULT true) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE COST 100000 AS 'MODULE_PATHNAME', 'sketch_enable_wrapper';
COMMENT ON FUNCTION sketch_enable(regclass, name, name, name, text, boolean)
    IS 'prepare a table of photos for search by drawing: columns, trigger, embeddings, codebook';

CREATE FUNCTION sketch_disable(photos regclass) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sketch_disable_wrapper';
COMMENT ON FUNCTION sketch_disable(regclass) IS 'undo sketch_enable; codebooks stay';

CREATE FUNCTION sketch_fuse_photos(photos regclass) RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE COST 100000 AS 'MODULE_PATHNAME', 'sketch_fuse_photos_wrapper';
COMMENT ON FUNCTION sketch_fuse_photos(regclass) IS 'fuse the photos of a table with its newest codebook, which is built if there is none';

CREATE FUNCTION sketch_embed_batch(photos regclass, batch integer, progress jsonb) RETURNS jsonb
    LANGUAGE c VOLATILE PARALLEL UNSAFE COST 100000 AS 'MODULE_PATHNAME', 'embed_batch_wrapper';
COMMENT ON FUNCTION sketch_embed_batch(regclass, integer, jsonb)
    IS 'embed the next photos of a table that lack an embedding; progress is NULL at the start and at the end';

-- A procedure with SET search_path cannot commit: every name has its schema, and there is no operator.
CREATE PROCEDURE sketch_embed_photos(photos regclass, batch integer DEFAULT 100)
    LANGUAGE plpgsql AS $$
DECLARE
    progress pg_catalog.jsonb;
BEGIN
    LOOP
        progress := @extschema@.sketch_embed_batch(photos, batch, progress);
        EXIT WHEN progress IS NULL;
        COMMIT;
    END LOOP;
    PERFORM @extschema@.sketch_fuse_photos(photos);
END
$$;
COMMENT ON PROCEDURE sketch_embed_photos(regclass, integer)
    IS 'embed the photos of a table that lack an embedding, in batches with a commit after each, then fuse them';
