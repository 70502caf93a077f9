-- The type "embedding", its casts, and its distance.

CREATE TYPE embedding;

CREATE FUNCTION sketch_embedding_in(cstring) RETURNS embedding
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'embedding_in_wrapper';
CREATE FUNCTION sketch_embedding_out(embedding) RETURNS cstring
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'embedding_out_wrapper';
CREATE FUNCTION sketch_embedding_recv(internal) RETURNS embedding
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'embedding_recv_wrapper';
CREATE FUNCTION sketch_embedding_send(embedding) RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'embedding_send_wrapper';

-- STORAGE main: a photo's bytes go out of line first, its embeddings stay in the row, where a scan finds them.
CREATE TYPE embedding (
    INPUT = sketch_embedding_in,
    OUTPUT = sketch_embedding_out,
    RECEIVE = sketch_embedding_recv,
    SEND = sketch_embedding_send,
    INTERNALLENGTH = variable,
    ALIGNMENT = int4,
    STORAGE = main
);
COMMENT ON TYPE embedding IS 'what the network returns for one image: half-precision values, tagged with their model and codebook';

COMMENT ON FUNCTION sketch_embedding_in(cstring) IS 'I/O';
COMMENT ON FUNCTION sketch_embedding_out(embedding) IS 'I/O';
COMMENT ON FUNCTION sketch_embedding_recv(internal) IS 'I/O';
COMMENT ON FUNCTION sketch_embedding_send(embedding) IS 'I/O';

-- Casts; the tags of model and codebook do not pass through real[].

CREATE FUNCTION sketch_from_array(real[]) RETURNS embedding
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'embedding_from_array_wrapper';
COMMENT ON FUNCTION sketch_from_array(real[]) IS 'embedding of any origin: it compares with those of every model';

CREATE FUNCTION sketch_to_array(embedding) RETURNS real[]
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'embedding_to_array_wrapper';
COMMENT ON FUNCTION sketch_to_array(embedding) IS 'values of an embedding';

CREATE CAST (real[] AS embedding) WITH FUNCTION sketch_from_array(real[]) AS ASSIGNMENT;
CREATE CAST (embedding AS real[]) WITH FUNCTION sketch_to_array(embedding) AS ASSIGNMENT;

-- Facts about one embedding.

CREATE FUNCTION sketch_dimension(embedding) RETURNS integer
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'embedding_dimension_wrapper';
COMMENT ON FUNCTION sketch_dimension(embedding) IS 'number of values';

CREATE FUNCTION sketch_model_id(embedding) RETURNS bigint
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'embedding_model_id_wrapper';
COMMENT ON FUNCTION sketch_model_id(embedding) IS 'sketch.model that made the embedding, NULL if none is known';

CREATE FUNCTION sketch_codebook_id(embedding) RETURNS bigint
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'embedding_codebook_id_wrapper';
COMMENT ON FUNCTION sketch_codebook_id(embedding) IS 'sketch.codebook that fused the embedding, NULL if it is not fused';

-- Distance: lower is nearer.

CREATE FUNCTION sketch_l2_distance(embedding, embedding) RETURNS double precision
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 5 AS 'MODULE_PATHNAME', 'embedding_l2_distance_wrapper';
COMMENT ON FUNCTION sketch_l2_distance(embedding, embedding) IS 'implementation of <-> operator';

CREATE OPERATOR <-> (
    FUNCTION = sketch_l2_distance,
    LEFTARG = embedding,
    RIGHTARG = embedding,
    COMMUTATOR = <->
);
COMMENT ON OPERATOR <-> (embedding, embedding) IS 'L2 distance';

CREATE FUNCTION sketch_distance(a embedding, b embedding) RETURNS double precision
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE COST 5
    RETURN a OPERATOR(@extschema@.<->) b;
COMMENT ON FUNCTION sketch_distance(embedding, embedding) IS 'L2 distance';
-- The access method "ivfexact": an exact, ordered index of embeddings.

CREATE FUNCTION sketch_ivfexact_handler(internal) RETURNS index_am_handler
    LANGUAGE c VOLATILE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'ivfexact_handler_wrapper';
COMMENT ON FUNCTION sketch_ivfexact_handler(internal) IS 'ivfexact index access method handler';

CREATE ACCESS METHOD ivfexact TYPE INDEX HANDLER sketch_ivfexact_handler;
COMMENT ON ACCESS METHOD ivfexact IS 'rows in exact order of their distance from a query';

CREATE OPERATOR CLASS embedding_l2_ops DEFAULT FOR TYPE embedding USING ivfexact AS
    OPERATOR 1 <-> (embedding, embedding) FOR ORDER BY pg_catalog.float_ops;
COMMENT ON OPERATOR CLASS embedding_l2_ops USING ivfexact IS 'L2 distance';
COMMENT ON OPERATOR FAMILY embedding_l2_ops USING ivfexact IS 'L2 distance';

CREATE FUNCTION sketch_check_index(index regclass, OUT lists bigint, OUT rows bigint, OUT visible bigint, OUT free bigint,
                                   OUT pages bigint, OUT unused_pages bigint) RETURNS SETOF record
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE COST 10000 ROWS 1 AS 'MODULE_PATHNAME', 'sketch_check_index_wrapper';
COMMENT ON FUNCTION sketch_check_index(regclass)
    IS 'verify an index of ivfexact against itself and its table: an error, or how much it holds';

CREATE FUNCTION sketch_index_scan(OUT lists bigint, OUT rows bigint, OUT refined bigint, OUT pages bigint, OUT rounds bigint)
    RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 1 AS 'MODULE_PATHNAME', 'sketch_index_scan_wrapper';
COMMENT ON FUNCTION sketch_index_scan()
    IS 'what the last scan of an ivfexact index by this connection visited';
-- What the database keeps: networks and codebooks. Rows are never changed in place; a new version is a new row.

CREATE SCHEMA sketch;
COMMENT ON SCHEMA sketch IS 'networks and codebooks of pg_sketch';
GRANT USAGE ON SCHEMA sketch TO PUBLIC;

CREATE TABLE sketch.model (
    model_id   bigint PRIMARY KEY CHECK (model_id BETWEEN 1 AND 4294967295),
    name       text NOT NULL,
    sha256     bytea NOT NULL UNIQUE CHECK (octet_length(sha256) = 32),
    onnx       bytea NOT NULL,
    manifest   jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
ALTER TABLE sketch.model ALTER onnx SET STORAGE EXTERNAL;
COMMENT ON TABLE sketch.model IS 'networks; of several with one name the newest is in use';
COMMENT ON COLUMN sketch.model.model_id IS 'first four bytes of sha256; the tag that embeddings carry';
COMMENT ON COLUMN sketch.model.sha256 IS 'digest of graph and manifest';
COMMENT ON COLUMN sketch.model.onnx IS 'the graph';
COMMENT ON COLUMN sketch.model.manifest IS 'what the graph expects and returns, and how images are prepared for it';

CREATE TABLE sketch.codebook (
    codebook_id bigint PRIMARY KEY CHECK (codebook_id BETWEEN 1 AND 4294967295),
    name        text NOT NULL,
    owner       name NOT NULL,
    model_id    bigint NOT NULL REFERENCES sketch.model,
    dimension   integer NOT NULL,
    subspaces   integer NOT NULL,
    prototypes  integer NOT NULL,
    weight      real NOT NULL CHECK (weight BETWEEN 0 AND 1),
    unit_length boolean NOT NULL,
    sha256      bytea NOT NULL UNIQUE CHECK (octet_length(sha256) = 32),
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ON sketch.codebook (name);
COMMENT ON TABLE sketch.codebook IS 'codebooks; of several with one name the newest is in use';
COMMENT ON COLUMN sketch.codebook.codebook_id IS 'first four bytes of sha256; the tag that fused embeddings carry';
COMMENT ON COLUMN sketch.codebook.owner IS 'role that loaded the first codebook of that name; only its members load newer ones';
COMMENT ON COLUMN sketch.codebook.weight IS 'fused embedding = weight * embedding + (1 - weight) * prototypes';
COMMENT ON COLUMN sketch.codebook.unit_length IS 'whether fused embeddings are brought to unit length; the patent leaves them as they are';

CREATE TABLE sketch.prototype (
    codebook_id bigint NOT NULL REFERENCES sketch.codebook ON DELETE CASCADE,
    subspace    integer NOT NULL,
    prototype   integer NOT NULL,
    centroid    real[] NOT NULL,
    PRIMARY KEY (codebook_id, subspace, prototype)
);
COMMENT ON TABLE sketch.prototype IS 'cluster centres of the subspaces of a codebook (the literature says centroid)';

GRANT SELECT ON sketch.model, sketch.codebook, sketch.prototype TO PUBLIC;

SELECT pg_catalog.pg_extension_config_dump('sketch.model', '');
SELECT pg_catalog.pg_extension_config_dump('sketch.codebook', '');
SELECT pg_catalog.pg_extension_config_dump('sketch.prototype', '');

-- Networks. A graph runs as code of the server, so that only a superuser, or whom he grants it to, may bring one.

CREATE FUNCTION sketch_load_model() RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'load_shipped_model_wrapper';
COMMENT ON FUNCTION sketch_load_model() IS 'load the network that comes with the extension, unless one is loaded; returns the model_id in use';

CREATE FUNCTION sketch_load_model(name text, onnx bytea, manifest jsonb) RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'load_model_wrapper';
REVOKE EXECUTE ON FUNCTION sketch_load_model(text, bytea, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION sketch_load_model(text, bytea, jsonb) IS 'load a network: an ONNX graph and its manifest; returns its model_id';

CREATE FUNCTION sketch_current_model() RETURNS bigint
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'current_model_wrapper';
COMMENT ON FUNCTION sketch_current_model() IS 'model_id in use: the newest of the name in pg_sketch.model, or of all; NULL if none is loaded';

-- Codebooks.

CREATE FUNCTION sketch_current_codebook(name text) RETURNS bigint
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'current_codebook_wrapper';
COMMENT ON FUNCTION sketch_current_codebook(text) IS 'codebook_id in use: the newest of that name for the model in use, NULL if there is none';

CREATE FUNCTION sketch_load_codebook(name text, codebook jsonb) RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'load_codebook_wrapper';
COMMENT ON FUNCTION sketch_load_codebook(text, jsonb) IS 'load a codebook as the trainer writes it; returns its codebook_id';

CREATE FUNCTION sketch_train_codebook(photos regclass, embedding_column text, subspaces integer, prototypes integer,
                                      weight real, unit_length boolean, sample integer) RETURNS jsonb
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'train_codebook_wrapper';
COMMENT ON FUNCTION sketch_train_codebook(regclass, text, integer, integer, real, boolean, integer)
    IS 'prototypes of a sample of embeddings by k-means, as sketch_load_codebook takes them';

CREATE FUNCTION sketch_build_codebook(name text, photos regclass, embedding_column text DEFAULT 'embedding',
                                      subspaces integer DEFAULT 2, prototypes integer DEFAULT NULL,
                                      weight real DEFAULT 0.2, unit_length boolean DEFAULT true,
                                      sample integer DEFAULT 10000) RETURNS bigint
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    RETURN sketch_load_codebook(name, sketch_train_codebook(photos, embedding_column, subspaces, prototypes, weight,
                                                      unit_length, sample));
COMMENT ON FUNCTION sketch_build_codebook(text, regclass, text, integer, integer, real, boolean, integer)
    IS 'build a codebook from the embeddings of a table; returns its codebook_id';
CREATE FUNCTION sketch_embed_support(internal) RETURNS internal
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'embed_support_wrapper';
COMMENT ON FUNCTION sketch_embed_support(internal) IS 'planner support: an image that does not vary is embedded once';

-- Images to embeddings. STABLE, for they read sketch.model and settings; PARALLEL RESTRICTED, so that a parallel
-- scan does not load the network in every worker.

CREATE FUNCTION sketch_embed(drawing bytea) RETURNS embedding
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED SUPPORT sketch_embed_support AS 'MODULE_PATHNAME', 'sketch_embed_bytea_wrapper';
COMMENT ON FUNCTION sketch_embed(bytea) IS 'embed a drawing: PNG, JPEG, WebP, SVG, strokes as JSON, or a data URI';

CREATE FUNCTION sketch_embed(drawing bytea, model text) RETURNS embedding
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED SUPPORT sketch_embed_support AS 'MODULE_PATHNAME', 'sketch_embed_bytea_wrapper';
COMMENT ON FUNCTION sketch_embed(bytea, text) IS 'embed a drawing with a model of that name';

CREATE FUNCTION sketch_embed(drawing jsonb) RETURNS embedding
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED SUPPORT sketch_embed_support AS 'MODULE_PATHNAME', 'sketch_embed_jsonb_wrapper';
COMMENT ON FUNCTION sketch_embed(jsonb) IS 'embed a drawing given as strokes: [[xs],[ys]]... or [{x,y}...]';

CREATE FUNCTION sketch_embed(drawing jsonb, model text) RETURNS embedding
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED SUPPORT sketch_embed_support AS 'MODULE_PATHNAME', 'sketch_embed_jsonb_wrapper';
COMMENT ON FUNCTION sketch_embed(jsonb, text) IS 'embed a drawing given as strokes with a model of that name';

CREATE FUNCTION photo_embed(photo bytea) RETURNS embedding
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED SUPPORT sketch_embed_support AS 'MODULE_PATHNAME', 'photo_embed_wrapper';
COMMENT ON FUNCTION photo_embed(bytea) IS 'embed a photo: PNG, JPEG, WebP';

CREATE FUNCTION photo_embed(photo bytea, model text) RETURNS embedding
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED SUPPORT sketch_embed_support AS 'MODULE_PATHNAME', 'photo_embed_wrapper';
COMMENT ON FUNCTION photo_embed(bytea, text) IS 'embed a photo with a model of that name';

CREATE FUNCTION sketch_fuse(embedding, codebook text) RETURNS embedding
    LANGUAGE c STABLE STRICT PARALLEL SAFE COST 1000 AS 'MODULE_PATHNAME', 'sketch_fuse_wrapper';
COMMENT ON FUNCTION sketch_fuse(embedding, text) IS 'fused embedding: weight * embedding + (1 - weight) * its prototypes';

-- Inlines to the operator, so that an index on "fused" serves it.
CREATE FUNCTION sketch_distance(fused embedding, drawing bytea) RETURNS double precision
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED
    RETURN fused OPERATOR(@extschema@.<->) sketch_embed(drawing);
COMMENT ON FUNCTION sketch_distance(embedding, bytea) IS 'L2 distance to a drawing';

CREATE FUNCTION sketch_status() RETURNS TABLE (name text, value text)
    LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 12 AS 'MODULE_PATHNAME', 'sketch_status_wrapper';
COMMENT ON FUNCTION sketch_status() IS 'versions, device in use, models loaded, and counters of this connection';
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
-- What was embedded, and how fast: of all connections with the inference worker, else of this one.

CREATE FUNCTION sketch_stat_counters()
    RETURNS TABLE (model_id bigint, device text, place text, requests bigint, images bigint, batches bigint,
                   wait_time double precision, run_time double precision, errors bigint, left_alone bigint,
                   stats_reset timestamptz)
    LANGUAGE c VOLATILE PARALLEL SAFE ROWS 10 AS 'MODULE_PATHNAME', 'stat_counters_wrapper';
COMMENT ON FUNCTION sketch_stat_counters() IS 'the counters that sketch_stat shows';

CREATE VIEW sketch_stat AS
SELECT c.model_id, m.name AS model, c.device, c.place, c.requests, c.images, c.batches,
       c.images::double precision / nullif(c.batches, 0) AS mean_batch_size,
       c.wait_time, c.wait_time / nullif(c.images + c.errors + c.left_alone, 0) AS mean_wait_time,
       c.run_time, c.run_time / nullif(c.batches, 0) AS mean_run_time,
       c.errors, c.left_alone, c.stats_reset
FROM sketch_stat_counters() AS c LEFT JOIN sketch.model AS m USING (model_id);
GRANT SELECT ON sketch_stat TO PUBLIC;
COMMENT ON VIEW sketch_stat IS 'images embedded, by model, device and place (the inference worker or the connections); times in milliseconds';
COMMENT ON COLUMN sketch_stat.requests IS 'calls that embedded: one image each or, in bulk, many';
COMMENT ON COLUMN sketch_stat.batches IS 'runs of the network';
COMMENT ON COLUMN sketch_stat.wait_time IS 'time that images waited for a run, summed over images';
COMMENT ON COLUMN sketch_stat.run_time IS 'time that the network ran';
COMMENT ON COLUMN sketch_stat.errors IS 'images that the network failed to embed';
COMMENT ON COLUMN sketch_stat.left_alone IS 'images whose connection did not wait for the end: canceled, terminated, timed out';

CREATE FUNCTION sketch_stat_reset() RETURNS void
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'stat_reset_wrapper';
REVOKE EXECUTE ON FUNCTION sketch_stat_reset() FROM PUBLIC;
COMMENT ON FUNCTION sketch_stat_reset() IS 'set the counters of sketch_stat, and those of this connection in sketch_status, to 0';
