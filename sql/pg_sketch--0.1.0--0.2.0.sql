-- From version 0.1.0 of the extension's SQL to 0.2.0.

-- The library must be there first; see version.sql.
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

DROP FUNCTION sketch_build_codebook(text, regclass, text, integer, integer, real, boolean, integer);
DROP FUNCTION sketch_train_codebook(regclass, text, integer, integer, real, boolean, integer);
DROP FUNCTION sketch_load_codebook(text, jsonb);
DROP FUNCTION sketch_current_codebook(text);
DROP FUNCTION sketch_fuse(embedding, text);
DROP FUNCTION sketch_gallery(regclass);
DROP FUNCTION sketch_enable(regclass, name, name, name, text, boolean);
DROP FUNCTION sketch_embed_rows(regclass, tid[]);

COMMENT ON TYPE embedding IS 'output of the network for one image: half-precision values, tagged with their model and codebook';
COMMENT ON FUNCTION sketch_from_array(real[]) IS 'embedding without tags: it compares with embeddings of every model';

CREATE FUNCTION sketch_from_array(double precision[]) RETURNS embedding
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN sketch_from_array($1::real[]);
COMMENT ON FUNCTION sketch_from_array(double precision[]) IS 'embedding without tags: it compares with embeddings of every model';

CREATE CAST (double precision[] AS embedding) WITH FUNCTION sketch_from_array(double precision[]) AS ASSIGNMENT;
-- No operator class: the index bounds L2 distances, and the order of the others differs if lengths do.
CREATE FUNCTION sketch_cosine_distance(embedding, embedding) RETURNS double precision
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 15 AS 'MODULE_PATHNAME', 'embedding_cosine_distance_wrapper';
COMMENT ON FUNCTION sketch_cosine_distance(embedding, embedding) IS 'implementation of <=> operator';

CREATE OPERATOR <=> (
    FUNCTION = sketch_cosine_distance,
    LEFTARG = embedding,
    RIGHTARG = embedding,
    COMMUTATOR = <=>
);
COMMENT ON OPERATOR <=> (embedding, embedding) IS 'cosine distance';

CREATE FUNCTION sketch_negative_inner_product(embedding, embedding) RETURNS double precision
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 5 AS 'MODULE_PATHNAME', 'embedding_negative_inner_product_wrapper';
COMMENT ON FUNCTION sketch_negative_inner_product(embedding, embedding) IS 'implementation of <#> operator';

CREATE OPERATOR <#> (
    FUNCTION = sketch_negative_inner_product,
    LEFTARG = embedding,
    RIGHTARG = embedding,
    COMMUTATOR = <#>
);
COMMENT ON OPERATOR <#> (embedding, embedding) IS 'negative inner product';

-- The mean, such as that of a drawing and a photo.

CREATE FUNCTION sketch_avg_add(double precision[], embedding) RETURNS double precision[]
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'embedding_avg_add_wrapper';
COMMENT ON FUNCTION sketch_avg_add(double precision[], embedding) IS 'aggregate transition function';

CREATE FUNCTION sketch_avg_combine(double precision[], double precision[]) RETURNS double precision[]
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'embedding_avg_combine_wrapper';
COMMENT ON FUNCTION sketch_avg_combine(double precision[], double precision[]) IS 'aggregate combine function';

CREATE FUNCTION sketch_avg(double precision[]) RETURNS embedding
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'embedding_avg_wrapper';
COMMENT ON FUNCTION sketch_avg(double precision[]) IS 'aggregate final function';

CREATE AGGREGATE avg(embedding) (
    SFUNC = sketch_avg_add,
    STYPE = double precision[],
    COMBINEFUNC = sketch_avg_combine,
    FINALFUNC = sketch_avg,
    INITCOND = '{0,0,0}',
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE avg(embedding) IS 'mean of embeddings of one model';

-- Casts to the types of pgvector. They belong to the database, not to the extension, so that either extension can be
-- dropped, and a dump holds them after both.

CREATE FUNCTION sketch_create_vector_casts() RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    home text := (SELECT quote_ident(n.nspname) FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace WHERE extname = 'pg_sketch');
    theirs text := (SELECT quote_ident(n.nspname) FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace WHERE extname = 'vector');
    other text;
BEGIN
    IF theirs IS NULL THEN
        RAISE EXCEPTION 'extension "vector" is not installed in this database'
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Run CREATE EXTENSION vector first.';
    END IF;
    FOREACH other IN ARRAY ARRAY['vector', 'halfvec'] LOOP
        EXECUTE format('CREATE FUNCTION %1$s.sketch_to_%3$s(%1$s.embedding) RETURNS %2$s.%3$s LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE '
            'RETURN (%1$s.sketch_to_array($1))::%2$s.%3$s', home, theirs, other);
        EXECUTE format('CREATE FUNCTION %1$s.sketch_from_%3$s(%2$s.%3$s) RETURNS %1$s.embedding LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE '
            'RETURN %1$s.sketch_from_array($1::pg_catalog.float4[])', home, theirs, other);
        EXECUTE format('CREATE CAST (%1$s.embedding AS %2$s.%3$s) WITH FUNCTION %1$s.sketch_to_%3$s(%1$s.embedding) AS ASSIGNMENT', home, theirs, other);
        EXECUTE format('CREATE CAST (%2$s.%3$s AS %1$s.embedding) WITH FUNCTION %1$s.sketch_from_%3$s(%2$s.%3$s) AS ASSIGNMENT', home, theirs, other);
    END LOOP;
END
$$;
COMMENT ON FUNCTION sketch_create_vector_casts() IS 'create casts between embedding and the types vector and halfvec of pgvector';

COMMENT ON FUNCTION sketch_model_id(embedding) IS 'model that made the embedding, NULL if unknown';
COMMENT ON FUNCTION sketch_codebook_id(embedding) IS 'codebook that fused the embedding, NULL if it is not fused';
COMMENT ON ACCESS METHOD ivfexact IS 'ivfexact index access method: rows in the exact order of their distance from a query';
COMMENT ON FUNCTION sketch_check_index(regclass)
    IS 'verify an ivfexact index against itself and its table; raises an error, or returns what it holds';

CREATE FUNCTION sketch_measure_recall(index regclass, queries embedding[], wanted double precision DEFAULT NULL,
                                      nearest integer DEFAULT 10, OUT recall double precision, OUT worst double precision,
                                      OUT ms double precision, OUT exact_ms double precision)
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE COST 100000
    SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    -- Loads the library, which defines the settings.
    library text := @extschema@.sketch_library_version();
    recall_before text := pg_catalog.current_setting('pg_sketch.recall');
    lists_before text := pg_catalog.current_setting('pg_sketch.max_lists');
    statement text;
    query @extschema@.embedding;
    started timestamptz;
    exact float8[];
    found float8[];
    part float8;
    total bigint := 0;
    hits bigint := 0;
    measured bigint := 0;
BEGIN
    SELECT format('SELECT array_agg(d) FROM (SELECT %1$s OPERATOR(@extschema@.<->) $1 AS d FROM ONLY %2$s WHERE %3$s ORDER BY d LIMIT $2) AS nearest',
                  pg_get_indexdef(i.indexrelid, 1, false), i.indrelid::regclass,
                  coalesce(pg_get_expr(i.indpred, i.indrelid), 'true'))
    INTO statement
    FROM pg_index AS i
        JOIN pg_class AS c ON c.oid = i.indexrelid
        JOIN pg_am AS a ON a.oid = c.relam
    WHERE i.indexrelid = index AND a.amname = 'ivfexact' AND c.relkind = 'i' AND i.indisvalid
        -- What they call, the owner chose.
        AND (i.indexprs IS NULL AND i.indpred IS NULL OR pg_get_userbyid(c.relowner) = current_user);
    IF statement IS NULL THEN
        RAISE EXCEPTION '"%" is not an index of access method "ivfexact" that can be measured', index
            USING ERRCODE = 'wrong_object_type', HINT = 'Measure the index of each partition; only the owner measures one with an expression or a condition.';
    END IF;
    IF queries IS NULL THEN
        RETURN;
    END IF;
    ms := 0;
    exact_ms := 0;
    FOREACH query IN ARRAY queries LOOP
        CONTINUE WHEN query IS NULL;
        PERFORM set_config('pg_sketch.recall', '1', true), set_config('pg_sketch.max_lists', '0', true);
        started := clock_timestamp();
        EXECUTE statement INTO exact USING query, nearest;
        exact_ms := exact_ms + 1000 * extract(epoch FROM clock_timestamp() - started);
        PERFORM set_config('pg_sketch.recall', coalesce(wanted::text, recall_before), true),
            set_config('pg_sketch.max_lists', lists_before, true);
        started := clock_timestamp();
        EXECUTE statement INTO found USING query, nearest;
        ms := ms + 1000 * extract(epoch FROM clock_timestamp() - started);
        CONTINUE WHEN exact IS NULL;
        SELECT count(*) FILTER (WHERE d <= exact[cardinality(exact)])::float8 / cardinality(exact) INTO part
        FROM unnest(found) AS d;
        hits := hits + round(part * cardinality(exact));
        total := total + cardinality(exact);
        worst := least(worst, part);
        measured := measured + 1;
    END LOOP;
    PERFORM set_config('pg_sketch.recall', recall_before, true);
    recall := hits::float8 / nullif(total, 0);
    ms := ms / nullif(measured, 0);
    exact_ms := exact_ms / nullif(measured, 0);
END
$$;
COMMENT ON FUNCTION sketch_measure_recall(regclass, embedding[], double precision, integer)
    IS 'part of the nearest rows that an ivfexact index finds for these queries at a setting of pg_sketch.recall, on average and at worst, and mean times beside exact search';
COMMENT ON FUNCTION sketch_index_scan()
    IS 'what the last ivfexact scan of this connection visited';
COMMENT ON SCHEMA sketch IS 'models and codebooks of pg_sketch';
COMMENT ON TABLE sketch.model IS 'models; of several with the same name, the newest is in use';
COMMENT ON COLUMN sketch.model.model_id IS 'first four bytes of sha256; embeddings carry it as a tag';
COMMENT ON COLUMN sketch.model.sha256 IS 'SHA-256 digest of graph and manifest';
COMMENT ON COLUMN sketch.model.onnx IS 'ONNX graph';
COMMENT ON COLUMN sketch.model.manifest IS 'inputs and outputs of the graph, and how images are prepared for it';
COMMENT ON TABLE sketch.codebook IS 'what codebooks hold; roles that load the same codebook share its row';
COMMENT ON COLUMN sketch.codebook.codebook_id IS 'first four bytes of sha256; fused embeddings carry it as a tag';
COMMENT ON COLUMN sketch.codebook.unit_length IS 'whether fused embeddings are brought to unit length; the patent leaves them as they are';

CREATE TABLE sketch.bank (
    bank_id    bigint PRIMARY KEY CHECK (bank_id BETWEEN 1 AND 4294967295),
    model_id   bigint NOT NULL REFERENCES sketch.model,
    sha256     bytea NOT NULL UNIQUE CHECK (octet_length(sha256) = 32),
    drawings   bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
ALTER TABLE sketch.bank ALTER drawings SET STORAGE EXTERNAL;
COMMENT ON TABLE sketch.bank IS 'embeddings of drawings, by which hubs are corrected; of several for the same model, the newest is in use';
COMMENT ON COLUMN sketch.bank.bank_id IS 'first four bytes of sha256';
COMMENT ON COLUMN sketch.bank.sha256 IS 'SHA-256 digest of the bank';
COMMENT ON COLUMN sketch.bank.drawings IS 'bank as sketch-trainer writes it';

ALTER TABLE sketch.codebook
    ADD COLUMN channel boolean NOT NULL DEFAULT false,
    ADD COLUMN hubs real NOT NULL DEFAULT 0 CHECK (hubs BETWEEN 0 AND 100),
    ADD COLUMN bank_id bigint REFERENCES sketch.bank;
COMMENT ON COLUMN sketch.codebook.channel IS 'whether one more channel brings them to unit length; version 0.1.0 scaled them';
COMMENT ON COLUMN sketch.codebook.hubs IS 'strength of the hub correction, 0 for none';
COMMENT ON COLUMN sketch.codebook.bank_id IS 'bank of the hub correction';

CREATE TABLE sketch.codebook_name (
    owner       name NOT NULL,
    name        text NOT NULL,
    codebook_id bigint NOT NULL REFERENCES sketch.codebook ON DELETE CASCADE,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (owner, name, codebook_id)
);
INSERT INTO sketch.codebook_name (owner, name, codebook_id, created_at)
SELECT owner, name, codebook_id, created_at FROM sketch.codebook;
ALTER TABLE sketch.codebook DROP COLUMN name, DROP COLUMN owner, DROP COLUMN created_at;
COMMENT ON TABLE sketch.codebook_name IS 'names of codebooks; of several codebooks with the same owner and name, the newest is in use';
COMMENT ON COLUMN sketch.codebook_name.owner IS 'role that the name belongs to: only roles with its privileges may load a codebook under it';

GRANT SELECT ON sketch.model, sketch.bank, sketch.codebook, sketch.codebook_name, sketch.prototype TO PUBLIC;

SELECT pg_catalog.pg_extension_config_dump('sketch.bank', '');
SELECT pg_catalog.pg_extension_config_dump('sketch.codebook_name', '');
COMMENT ON FUNCTION sketch_load_model() IS 'load the network that ships with the extension, unless a model is loaded, and its bank; returns the model_id in use';
CREATE FUNCTION sketch_update_model() RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'update_model_wrapper';
REVOKE EXECUTE ON FUNCTION sketch_update_model() FROM PUBLIC;
COMMENT ON FUNCTION sketch_update_model() IS 'load the network that ships with this version of the extension beside those that are loaded, and its bank; returns its model_id';

COMMENT ON FUNCTION sketch_load_model(text, bytea, jsonb) IS 'load a model, an ONNX graph and its manifest; returns its model_id';

CREATE FUNCTION sketch_load_bank(drawings bytea) RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'load_bank_wrapper';
REVOKE EXECUTE ON FUNCTION sketch_load_bank(bytea) FROM PUBLIC;
COMMENT ON FUNCTION sketch_load_bank(bytea) IS 'load a bank of drawings for the hub correction, as sketch-trainer writes it; returns its bank_id';
COMMENT ON FUNCTION sketch_current_model() IS 'model_id in use: the newest model with the name in pg_sketch.model, or the newest of all; NULL if none is loaded';

CREATE FUNCTION sketch_current_codebook(name text, owner text DEFAULT current_user) RETURNS bigint
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'current_codebook_of_wrapper';
COMMENT ON FUNCTION sketch_current_codebook(text, text)
    IS 'codebook_id in use: the newest codebook of that name and owner for the current model, NULL if there is none';

CREATE FUNCTION sketch_load_codebook(name text, codebook jsonb, owner text DEFAULT current_user) RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'load_codebook_for_wrapper';
COMMENT ON FUNCTION sketch_load_codebook(text, jsonb, text)
    IS 'load a codebook in the format of sketch_train_codebook, for the caller or a role whose privileges the caller has; returns its codebook_id';

CREATE FUNCTION sketch_export_codebook(name text, owner text DEFAULT current_user) RETURNS jsonb
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'export_codebook_wrapper';
COMMENT ON FUNCTION sketch_export_codebook(text, text)
    IS 'the codebook in use of that name and owner, for sketch_load_codebook on another server';

CREATE FUNCTION sketch_train_codebook(photos regclass, embedding_column text, subspaces integer, prototypes integer,
                                      weight real, unit_length boolean, sample integer, hubs real DEFAULT NULL) RETURNS jsonb
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'train_codebook_with_wrapper';
COMMENT ON FUNCTION sketch_train_codebook(regclass, text, integer, integer, real, boolean, integer, real)
    IS 'train prototypes on a sample of embeddings by k-means; returns them as sketch_load_codebook takes them';

CREATE FUNCTION sketch_build_codebook(name text, photos regclass, embedding_column text DEFAULT 'embedding',
                                      subspaces integer DEFAULT NULL, prototypes integer DEFAULT NULL,
                                      weight double precision DEFAULT 0.35, unit_length boolean DEFAULT true,
                                      sample integer DEFAULT 10000, owner text DEFAULT current_user,
                                      hubs double precision DEFAULT NULL) RETURNS bigint
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    RETURN sketch_load_codebook(name, sketch_train_codebook(photos, embedding_column, subspaces, prototypes, weight::real,
                                                      unit_length, sample, hubs::real), owner);
COMMENT ON FUNCTION sketch_build_codebook(text, regclass, text, integer, integer, double precision, boolean, integer, text, double precision)
    IS 'build a codebook from the embeddings of a table; returns its codebook_id';
COMMENT ON FUNCTION sketch_embed_support(internal) IS 'planner support: a constant image is embedded once';
COMMENT ON FUNCTION sketch_embed(bytea) IS 'embed a drawing: PNG, JPEG, WebP, SVG, strokes as JSON, or a data URI of one of these';
COMMENT ON FUNCTION sketch_embed(bytea, text) IS 'embed a drawing with the model of that name';
COMMENT ON FUNCTION sketch_embed(jsonb) IS 'embed a drawing given as strokes: [[[x, ...], [y, ...]], ...] or [[{"x": x, "y": y}, ...], ...]';
COMMENT ON FUNCTION sketch_embed(jsonb, text) IS 'embed a drawing given as strokes with the model of that name';

CREATE FUNCTION sketch_embed(drawing text) RETURNS embedding
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED SUPPORT sketch_embed_support AS 'MODULE_PATHNAME', 'sketch_embed_bytea_wrapper';
COMMENT ON FUNCTION sketch_embed(text) IS 'embed a drawing given as text: strokes as JSON, SVG, or a data URI';

CREATE FUNCTION sketch_embed(drawing text, model text) RETURNS embedding
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED SUPPORT sketch_embed_support AS 'MODULE_PATHNAME', 'sketch_embed_bytea_wrapper';
COMMENT ON FUNCTION sketch_embed(text, text) IS 'embed a drawing given as text with the model of that name';
COMMENT ON FUNCTION photo_embed(bytea) IS 'embed a photo: PNG, JPEG or WebP';
COMMENT ON FUNCTION photo_embed(bytea, text) IS 'embed a photo with the model of that name';

CREATE FUNCTION sketch_fuse(embedding, codebook text, owner text DEFAULT current_user) RETURNS embedding
    LANGUAGE c STABLE STRICT PARALLEL SAFE COST 1000 AS 'MODULE_PATHNAME', 'sketch_fuse_with_wrapper';
COMMENT ON FUNCTION sketch_fuse(embedding, text, text) IS 'fused embedding: weight * embedding + (1 - weight) * nearest prototypes, and its channel';

CREATE FUNCTION sketch_correct(embedding) RETURNS embedding
    LANGUAGE c STABLE STRICT PARALLEL SAFE COST 1000 AS 'MODULE_PATHNAME', 'sketch_correct_wrapper';
COMMENT ON FUNCTION sketch_correct(embedding) IS 'embedding with the hub correction of its model, as a gallery without a codebook stores it';

CREATE FUNCTION sketch_distance(fused embedding, drawing jsonb) RETURNS double precision
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED
    RETURN fused OPERATOR(@extschema@.<->) sketch_embed(drawing);
COMMENT ON FUNCTION sketch_distance(embedding, jsonb) IS 'L2 distance to a drawing given as strokes';

CREATE FUNCTION sketch_distance(fused embedding, drawing text) RETURNS double precision
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED
    RETURN fused OPERATOR(@extschema@.<->) sketch_embed(drawing);
COMMENT ON FUNCTION sketch_distance(embedding, text) IS 'L2 distance to a drawing given as text';
COMMENT ON FUNCTION sketch_status() IS 'versions, device, loaded models, the inference worker, and counters of this connection';

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

GRANT SELECT ON sketch.gallery TO PUBLIC;

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
COMMENT ON FUNCTION sketch_trigger() IS 'embed and fuse a new photo of a gallery';

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

CREATE OR REPLACE FUNCTION sketch_disable(photos regclass) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sketch_disable_wrapper';

CREATE OR REPLACE FUNCTION sketch_fuse_photos(photos regclass) RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE COST 100000 AS 'MODULE_PATHNAME', 'sketch_fuse_photos_wrapper';

CREATE FUNCTION sketch_embed_batch(photos regclass, batch integer, progress jsonb) RETURNS jsonb
    LANGUAGE c VOLATILE PARALLEL UNSAFE COST 100000 AS 'MODULE_PATHNAME', 'embed_batch_wrapper';
COMMENT ON FUNCTION sketch_embed_batch(regclass, integer, jsonb)
    IS 'embed the next photos of a table that lack an embedding; progress is NULL at the start and at the end';

CREATE OR REPLACE PROCEDURE sketch_embed_photos(photos regclass, batch integer DEFAULT 100)
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

COMMENT ON FUNCTION sketch_stat_counters() IS 'counters behind sketch_stat';
COMMENT ON VIEW sketch_stat IS 'embedded images by model, device and place (inference worker or connections); times in milliseconds';
COMMENT ON COLUMN sketch_stat.requests IS 'calls that embedded one image or, in bulk, many';
COMMENT ON COLUMN sketch_stat.wait_time IS 'total time that images waited for a run';
COMMENT ON COLUMN sketch_stat.run_time IS 'total time that the network ran';
COMMENT ON COLUMN sketch_stat.left_alone IS 'images whose connection did not wait for the result: canceled, terminated or timed out';
COMMENT ON FUNCTION sketch_stat_reset() IS 'reset the counters of sketch_stat, and those of this connection in sketch_status';

-- Fills sketch.gallery from the triggers of 0.1.0, whose arguments were the names of image, embedding and fused column,
-- and of the codebook. The triggers have no arguments from now on, and fire for all three columns.
DO $$
DECLARE
    found record;
    args pg_catalog.text[];
    model pg_catalog.int8 := (SELECT model_id FROM sketch.model ORDER BY created_at DESC LIMIT 1);
BEGIN
    FOR found IN
        SELECT t.tgrelid, t.tgname, t.tgargs, t.tgenabled, t.tgfoid, c.relowner
        FROM pg_catalog.pg_trigger AS t
            JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) t.tgrelid
            JOIN pg_catalog.pg_proc AS p ON p.oid OPERATOR(pg_catalog.=) t.tgfoid
            JOIN pg_catalog.pg_extension AS e ON e.extnamespace OPERATOR(pg_catalog.=) p.pronamespace
        WHERE e.extname OPERATOR(pg_catalog.=) 'pg_sketch' AND p.proname OPERATOR(pg_catalog.=) 'sketch_trigger'
            AND t.tgparentid OPERATOR(pg_catalog.=) 0::pg_catalog.oid AND t.tgnargs OPERATOR(pg_catalog.=) 4::pg_catalog.int2
            -- In 0.1.0, sketch_enable loaded a model before it made a trigger.
            AND model IS NOT NULL
    LOOP
        -- Each argument ends with a null byte: pairs of hexadecimal digits up to the pair 00.
        SELECT pg_catalog.array_agg(pg_catalog.convert_from(pg_catalog.decode(part[1], 'hex'), pg_catalog.getdatabaseencoding())
                                    ORDER BY number)
        INTO args
        FROM pg_catalog.regexp_matches(pg_catalog.encode(found.tgargs, 'hex'), '((?:(?!00)[0-9a-f]{2})*)00', 'g')
            WITH ORDINALITY AS matched (part, number);
        BEGIN
            INSERT INTO sketch.gallery (relation, image, embedding, fused, codebook, codebook_owner, model_id)
            VALUES (found.tgrelid,
                    pg_catalog.format('%s.%I', found.tgrelid::pg_catalog.regclass, args[1])::sketch.regcolumn,
                    pg_catalog.format('%s.%I', found.tgrelid::pg_catalog.regclass, args[2])::sketch.regcolumn,
                    pg_catalog.format('%s.%I', found.tgrelid::pg_catalog.regclass, args[3])::sketch.regcolumn,
                    -- In 0.1.0, all codebooks of one name had one owner.
                    args[4], coalesce((SELECT owner FROM sketch.codebook_name AS n WHERE n.name OPERATOR(pg_catalog.=) args[4] LIMIT 1),
                                      pg_catalog.pg_get_userbyid(found.relowner)), model)
            ON CONFLICT DO NOTHING;
            -- A trigger that is switched off would come back switched on.
            IF found.tgenabled OPERATOR(pg_catalog.=) 'O' THEN
                EXECUTE pg_catalog.format('CREATE OR REPLACE TRIGGER %I BEFORE INSERT OR UPDATE OF %I, %I, %I ON %s FOR EACH ROW EXECUTE FUNCTION %s()',
                                          found.tgname, args[1], args[2], args[3], found.tgrelid::pg_catalog.regclass,
                                          found.tgfoid::pg_catalog.regproc);
            END IF;
        EXCEPTION WHEN undefined_column THEN
            -- Inserts have failed since the column was renamed or dropped.
            RAISE WARNING 'table "%" is no longer enabled for sketches', found.tgrelid::pg_catalog.regclass
                USING DETAIL = SQLERRM, HINT = 'Give the column its name back and call sketch_enable with embed => false.';
        END;
    END LOOP;
END
$$;
