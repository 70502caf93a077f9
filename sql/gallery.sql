-- One call for a table of photos: columns, trigger, codebook.

CREATE FUNCTION sketch_trigger() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'sketch_trigger_wrapper';
COMMENT ON FUNCTION sketch_trigger() IS 'embed and fuse a new photo; arguments: image, embedding and fused column, codebook';

CREATE FUNCTION sketch_gallery(photos regclass)
    RETURNS TABLE (image_column text, embedding_column text, fused_column text, codebook text)
    LANGUAGE c STABLE STRICT PARALLEL SAFE ROWS 1 AS 'MODULE_PATHNAME', 'sketch_gallery_wrapper';
COMMENT ON FUNCTION sketch_gallery(regclass) IS 'columns and codebook of a table that sketch_enable prepared';

CREATE FUNCTION sketch_enable(photos regclass, image_column name, embedding_column name DEFAULT 'embedding',
                              fused_column name DEFAULT 'fused', codebook text DEFAULT NULL,
                              embed boolean DEFAULT true) RETURNS void
    LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    column_type regtype;
BEGIN
    SELECT atttypid INTO column_type FROM pg_catalog.pg_attribute
    WHERE attrelid = photos AND attname = image_column AND attnum > 0 AND NOT attisdropped;
    IF column_type IS DISTINCT FROM 'pg_catalog.bytea'::regtype THEN
        RAISE EXCEPTION 'table "%" has no column "%" of type bytea', photos, image_column
            USING ERRCODE = 'undefined_column';
    END IF;
    IF EXISTS (SELECT FROM pg_catalog.pg_trigger
               WHERE tgrelid = photos AND tgfoid = '@extschema@.sketch_trigger'::regproc) THEN
        RAISE EXCEPTION 'table "%" is enabled for sketches already', photos
            USING ERRCODE = 'duplicate_object', HINT = 'Call sketch_disable first.';
    END IF;
    PERFORM @extschema@.sketch_load_model();
    codebook := coalesce(codebook, photos::pg_catalog.text);
    EXECUTE pg_catalog.format('ALTER TABLE %s ADD COLUMN %I @extschema@.embedding, ADD COLUMN %I @extschema@.embedding',
                              photos, embedding_column, fused_column);
    -- Only "fused" is scanned: without its twin beside it in the row, a scan takes about half as long.
    EXECUTE pg_catalog.format('ALTER TABLE %s ALTER COLUMN %I SET STORAGE EXTERNAL', photos, embedding_column);
    EXECUTE pg_catalog.format('CREATE TRIGGER sketch_trigger BEFORE INSERT OR UPDATE OF %I ON %s '
                              'FOR EACH ROW EXECUTE FUNCTION @extschema@.sketch_trigger(%L, %L, %L, %L)',
                              image_column, photos, image_column, embedding_column, fused_column, codebook);
    IF embed THEN
        EXECUTE pg_catalog.format('UPDATE %s SET %I = %I WHERE %I IS NOT NULL',
                                  photos, image_column, image_column, image_column);
        PERFORM @extschema@.sketch_fuse_photos(photos);
    END IF;
END
$$;
COMMENT ON FUNCTION sketch_enable(regclass, name, name, name, text, boolean)
    IS 'prepare a table of photos for search by drawing: columns, trigger, embeddings, codebook';

CREATE FUNCTION sketch_disable(photos regclass) RETURNS void
    LANGUAGE plpgsql VOLATILE STRICT AS $$
DECLARE
    gallery record;
BEGIN
    SELECT * INTO gallery FROM @extschema@.sketch_gallery(photos);
    EXECUTE pg_catalog.format('DROP TRIGGER sketch_trigger ON %s', photos);
    EXECUTE pg_catalog.format('ALTER TABLE %s DROP COLUMN IF EXISTS %I, DROP COLUMN IF EXISTS %I',
                              photos, gallery.embedding_column, gallery.fused_column);
END
$$;
COMMENT ON FUNCTION sketch_disable(regclass) IS 'undo sketch_enable; codebooks stay';

-- Writes the codebook of a table, where there is none yet and photos enough, and fuses what is not fused with it.
-- All rows change at once: distances to fused and to plain embeddings do not rank together.
CREATE FUNCTION sketch_fuse_photos(photos regclass) RETURNS bigint
    LANGUAGE plpgsql VOLATILE STRICT AS $$
DECLARE
    gallery record;
    photo_count bigint;
    fused_count bigint;
BEGIN
    SELECT * INTO gallery FROM @extschema@.sketch_gallery(photos);
    EXECUTE pg_catalog.format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', photos);
    EXECUTE pg_catalog.format('SELECT pg_catalog.count(*) FROM (SELECT FROM %s WHERE %I IS NOT NULL LIMIT 64) AS few',
                              photos, gallery.embedding_column) INTO photo_count;
    IF photo_count < 64 THEN
        RAISE NOTICE 'table "%" has % embedded photos, too few for a codebook', photos, photo_count
            USING HINT = 'Photos are ranked by their embeddings alone until CALL sketch_embed_photos finds 64 or more.';
        RETURN 0;
    END IF;
    IF @extschema@.sketch_current_codebook(gallery.codebook) IS NULL THEN
        PERFORM @extschema@.sketch_build_codebook(gallery.codebook, photos, gallery.embedding_column);
    END IF;
    EXECUTE pg_catalog.format(
        'UPDATE %1$s SET %3$I = @extschema@.sketch_fuse(%2$I, %4$L) WHERE %2$I IS NOT NULL '
        'AND @extschema@.sketch_codebook_id(%3$I) IS DISTINCT FROM @extschema@.sketch_current_codebook(%4$L)',
        photos, gallery.embedding_column, gallery.fused_column, gallery.codebook);
    GET DIAGNOSTICS fused_count = ROW_COUNT;
    RETURN fused_count;
END
$$;
COMMENT ON FUNCTION sketch_fuse_photos(regclass) IS 'fuse the photos of a table with its newest codebook, which is built if there is none';

CREATE FUNCTION sketch_embed_rows(photos regclass, tids tid[])
    RETURNS TABLE (tid tid, embedding embedding, fused embedding)
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED ROWS 100 COST 100000 AS 'MODULE_PATHNAME', 'embed_rows_wrapper';
COMMENT ON FUNCTION sketch_embed_rows(regclass, tid[])
    IS 'embeddings of the photos of some rows, several at a time; NULL for a photo that cannot be embedded';

CREATE PROCEDURE sketch_embed_photos(photos regclass, batch integer DEFAULT 100)
    LANGUAGE plpgsql AS $$
DECLARE
    gallery record;
    missing text;
    total bigint;
    done bigint := 0;
    tids tid[];
    broken tid[];
    started timestamptz := pg_catalog.clock_timestamp();
    reported timestamptz := started;
BEGIN
    SELECT * INTO gallery FROM @extschema@.sketch_gallery(photos);
    PERFORM @extschema@.sketch_load_model();
    missing := pg_catalog.format(
        '%1$I IS NOT NULL AND (%2$I IS NULL OR @extschema@.sketch_model_id(%2$I) IS DISTINCT FROM @extschema@.sketch_current_model())',
        gallery.image_column, gallery.embedding_column);
    EXECUTE pg_catalog.format('SELECT pg_catalog.count(*) FROM %s WHERE %s', photos, missing) INTO total;
    -- A row that someone else changes meanwhile moves away from its tid: the trigger has seen it, and we pass it over.
    FOR tids IN EXECUTE pg_catalog.format(
        'SELECT pg_catalog.array_agg(tid) FROM (SELECT ctid AS tid, (pg_catalog.row_number() OVER () - 1) / $1 AS part '
        'FROM %s WHERE %s) AS missing GROUP BY part ORDER BY part', photos, missing) USING batch
    LOOP
        EXECUTE pg_catalog.format(
            'WITH e AS MATERIALIZED (SELECT * FROM @extschema@.sketch_embed_rows($1, $2)), '
            'written AS (UPDATE %1$s AS p SET %2$I = e.embedding, %3$I = e.fused FROM e '
            'WHERE p.ctid = e.tid AND e.embedding IS NOT NULL) '
            'SELECT pg_catalog.array_agg(tid) FROM e WHERE embedding IS NULL',
            photos, gallery.embedding_column, gallery.fused_column) INTO broken USING photos, tids;
        -- The trigger says what is wrong with a photo, and does with it what pg_sketch.broken_photo wants.
        IF broken IS NOT NULL THEN
            EXECUTE pg_catalog.format('UPDATE %s SET %I = %I WHERE ctid = ANY ($1)',
                                      photos, gallery.image_column, gallery.image_column) USING broken;
        END IF;
        COMMIT;
        done := done + pg_catalog.cardinality(tids);
        IF pg_catalog.clock_timestamp() - reported > '2 seconds' OR done >= total THEN
            reported := pg_catalog.clock_timestamp();
            RAISE NOTICE 'processed % of % photos, % per second', done, total,
                pg_catalog.round(done / greatest(extract(epoch FROM reported - started), 0.001), 1);
        END IF;
    END LOOP;
    PERFORM @extschema@.sketch_fuse_photos(photos);
END
$$;
COMMENT ON PROCEDURE sketch_embed_photos(regclass, integer)
    IS 'embed the photos of a table that lack an embedding, in batches with a commit after each, then fuse them';
