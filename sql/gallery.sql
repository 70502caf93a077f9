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
    model_id  bigint NOT NULL REFERENCES sketch.model,
    mode      text NOT NULL DEFAULT 'trigger' CHECK (mode IN ('trigger', 'background')),
    built_codebook bigint,
    built_photos   bigint,
    built_error    real,
    bank_id   bigint
);
COMMENT ON TABLE sketch.gallery IS 'tables that sketch_enable prepared';
COMMENT ON COLUMN sketch.gallery.image IS 'the photos, of type bytea';
COMMENT ON COLUMN sketch.gallery.embedding IS 'what the network returns for the photo';
COMMENT ON COLUMN sketch.gallery.fused IS 'embedding fused with the codebook; what drawings are compared with';
COMMENT ON COLUMN sketch.gallery.codebook IS 'name of the codebook; the newest of that name and owner is in use';
COMMENT ON COLUMN sketch.gallery.codebook_owner IS 'role whose codebook it is: the owner of the table when it was enabled';
COMMENT ON COLUMN sketch.gallery.model_id IS 'model of its photos; sketch_embed_photos, called by the owner, moves the gallery to the model in use';
COMMENT ON COLUMN sketch.gallery.mode IS 'who embeds new photos: the statement that writes them, by a trigger, or the background worker';
COMMENT ON COLUMN sketch.gallery.built_codebook IS 'the last codebook that sketch_enable, sketch_fuse_photos or maintenance built for the gallery';
COMMENT ON COLUMN sketch.gallery.built_photos IS 'embedded photos at that time';
COMMENT ON COLUMN sketch.gallery.built_error IS 'mean squared distance of photos from their prototypes at that time';
COMMENT ON COLUMN sketch.gallery.bank_id IS 'bank that corrects photos as long as there is no codebook';
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

CREATE FUNCTION sketch.wake_worker() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'wake_worker_wrapper';
COMMENT ON FUNCTION sketch.wake_worker() IS 'have the background worker look at all galleries of this database';

CREATE TRIGGER wake_worker AFTER INSERT OR UPDATE ON sketch.gallery
    FOR EACH STATEMENT EXECUTE FUNCTION sketch.wake_worker();

-- Photos that wait for the background worker, or that could not be embedded. A row is written with the photo, by a trigger,
-- and deleted with the photo's embedding. It is a hint where to look: what is true is in the photo's row, and maintenance
-- finds what is missing here. No index, so that a write costs little; not dumped, because a restore moves rows.
CREATE TABLE sketch.queue (
    gallery   oid NOT NULL,
    part      oid NOT NULL,
    tid       tid NOT NULL,
    queued_at timestamptz NOT NULL,
    attempts  integer NOT NULL,
    due_at    timestamptz NOT NULL,
    error     text
) USING heap WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
REVOKE ALL ON sketch.queue FROM PUBLIC;
COMMENT ON TABLE sketch.queue IS 'photos that wait to be embedded in the background, or could not be; the view sketch.queued is for reading';
COMMENT ON COLUMN sketch.queue.gallery IS 'table that sketch_enable prepared';
COMMENT ON COLUMN sketch.queue.part IS 'table that stores the photo: the gallery, or a partition';
COMMENT ON COLUMN sketch.queue.tid IS 'where the photo was when it was queued';
COMMENT ON COLUMN sketch.queue.attempts IS 'how often embedding it has failed';
COMMENT ON COLUMN sketch.queue.due_at IS 'when it is tried next; infinity if it is not';
COMMENT ON COLUMN sketch.queue.error IS 'why embedding it failed';

CREATE FUNCTION sketch.row_name(part oid, place tid) RETURNS text
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'row_name_wrapper';
COMMENT ON FUNCTION sketch.row_name(oid, tid) IS 'name of a photo as in messages, of columns that the user may read; NULL if it is gone';

-- An error may quote what a trigger or constraint of the table says about the row, so it is for those who may read the rows.
CREATE VIEW sketch.queued WITH (security_barrier) AS
SELECT gallery::regclass AS gallery, sketch.row_name(part, tid) AS photo,
       CASE WHEN attempts = 0 THEN 'waiting' WHEN due_at < 'infinity' THEN 'to be retried' ELSE 'failed' END AS state,
       queued_at, attempts, nullif(due_at, 'infinity') AS due_at, error
FROM sketch.queue
WHERE pg_catalog.has_table_privilege(part, 'SELECT') AND NOT pg_catalog.row_security_active(part);
GRANT SELECT ON sketch.queued TO PUBLIC;
COMMENT ON VIEW sketch.queued IS 'photos that wait to be embedded in the background, or could not be, of tables that the user may read';

CREATE FUNCTION sketch_queue_trigger() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'queue_trigger_wrapper';
COMMENT ON FUNCTION sketch_queue_trigger() IS 'queue a new photo of a gallery for the background worker';

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
    DELETE FROM sketch.queue AS q
    WHERE NOT EXISTS (SELECT FROM sketch.gallery WHERE relation = q.gallery) OR NOT EXISTS (SELECT FROM pg_class WHERE oid = q.part);
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
                              embed boolean DEFAULT true, mode text DEFAULT NULL) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE COST 100000 AS 'MODULE_PATHNAME', 'enable_wrapper';
COMMENT ON FUNCTION sketch_enable(regclass, name, name, name, text, boolean, text)
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

CREATE FUNCTION sketch_wait(photos regclass, timeout interval DEFAULT '1 minute') RETURNS boolean
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sketch_wait_wrapper';
COMMENT ON FUNCTION sketch_wait(regclass, interval)
    IS 'wait until no photo of a gallery waits to be embedded in the background; false if that takes longer';

CREATE FUNCTION sketch_gallery_status(gallery regclass, OUT mode text, OUT photos bigint, OUT embedded bigint, OUT fused bigint,
                                      OUT pending bigint, OUT failed bigint, OUT codebook bigint, OUT codebook_age interval,
                                      OUT drift double precision, OUT index regclass, OUT index_size bigint, OUT advice text)
    RETURNS SETOF record
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE COST 100000 ROWS 1 AS 'MODULE_PATHNAME', 'sketch_gallery_status_wrapper';
COMMENT ON FUNCTION sketch_gallery_status(regclass) IS 'how many photos of a gallery can be found, its codebook and index, and what would improve them';

CREATE FUNCTION sketch_maintain_step(photos regclass, progress jsonb) RETURNS jsonb
    LANGUAGE c VOLATILE PARALLEL UNSAFE COST 100000 AS 'MODULE_PATHNAME', 'maintain_step_wrapper';
COMMENT ON FUNCTION sketch_maintain_step(regclass, jsonb)
    IS 'do the next step of sketch_maintain; progress is NULL at the start and at the end';

CREATE PROCEDURE sketch_maintain(photos regclass)
    LANGUAGE plpgsql AS $$
DECLARE
    progress pg_catalog.jsonb;
BEGIN
    LOOP
        progress := @extschema@.sketch_maintain_step(photos, progress);
        EXIT WHEN progress IS NULL;
        COMMIT;
    END LOOP;
END
$$;
COMMENT ON PROCEDURE sketch_maintain(regclass)
    IS 'embed what is missing, build the codebook anew if the gallery has outgrown it, and make an index if it pays';
