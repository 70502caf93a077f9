-- Models and codebooks. Rows never change: a new version is a new row.

CREATE SCHEMA sketch;
COMMENT ON SCHEMA sketch IS 'models and codebooks of pg_sketch';
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
COMMENT ON TABLE sketch.model IS 'models; of several with the same name, the newest is in use';
COMMENT ON COLUMN sketch.model.model_id IS 'first four bytes of sha256; embeddings carry it as a tag';
COMMENT ON COLUMN sketch.model.sha256 IS 'SHA-256 digest of graph and manifest';
COMMENT ON COLUMN sketch.model.onnx IS 'ONNX graph';
COMMENT ON COLUMN sketch.model.manifest IS 'inputs and outputs of the graph, and how images are prepared for it';

-- Not a column of sketch.model: a bank changes no embedding, and a model may get another one.
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

CREATE TABLE sketch.codebook (
    codebook_id bigint PRIMARY KEY CHECK (codebook_id BETWEEN 1 AND 4294967295),
    model_id    bigint NOT NULL REFERENCES sketch.model,
    dimension   integer NOT NULL,
    subspaces   integer NOT NULL,
    prototypes  integer NOT NULL,
    weight      real NOT NULL CHECK (weight BETWEEN 0 AND 1),
    unit_length boolean NOT NULL,
    sha256      bytea NOT NULL UNIQUE CHECK (octet_length(sha256) = 32),
    channel     boolean NOT NULL DEFAULT false,
    hubs        real NOT NULL DEFAULT 0 CHECK (hubs BETWEEN 0 AND 100),
    bank_id     bigint REFERENCES sketch.bank
);
COMMENT ON TABLE sketch.codebook IS 'what codebooks hold; roles that load the same codebook share its row';
COMMENT ON COLUMN sketch.codebook.codebook_id IS 'first four bytes of sha256; fused embeddings carry it as a tag';
COMMENT ON COLUMN sketch.codebook.weight IS 'fused embedding = weight * embedding + (1 - weight) * prototypes';
COMMENT ON COLUMN sketch.codebook.unit_length IS 'whether fused embeddings are brought to unit length; the patent leaves them as they are';
COMMENT ON COLUMN sketch.codebook.channel IS 'whether one more channel brings them to unit length; version 0.1.0 scaled them';
COMMENT ON COLUMN sketch.codebook.hubs IS 'strength of the hub correction, 0 for none';
COMMENT ON COLUMN sketch.codebook.bank_id IS 'bank of the hub correction';

-- Each role has names of its own. The owner is kept by name: a dump can be restored where the role is missing, and
-- galleries still find their codebook.
CREATE TABLE sketch.codebook_name (
    owner       name NOT NULL,
    name        text NOT NULL,
    codebook_id bigint NOT NULL REFERENCES sketch.codebook ON DELETE CASCADE,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (owner, name, codebook_id)
);
COMMENT ON TABLE sketch.codebook_name IS 'names of codebooks; of several codebooks with the same owner and name, the newest is in use';
COMMENT ON COLUMN sketch.codebook_name.owner IS 'role that the name belongs to: only roles with its privileges may load a codebook under it';

CREATE TABLE sketch.prototype (
    codebook_id bigint NOT NULL REFERENCES sketch.codebook ON DELETE CASCADE,
    subspace    integer NOT NULL,
    prototype   integer NOT NULL,
    centroid    real[] NOT NULL,
    PRIMARY KEY (codebook_id, subspace, prototype)
);
COMMENT ON TABLE sketch.prototype IS 'cluster centres of the subspaces of a codebook (the literature says centroid)';

GRANT SELECT ON sketch.model, sketch.bank, sketch.codebook, sketch.codebook_name, sketch.prototype TO PUBLIC;

SELECT pg_catalog.pg_extension_config_dump('sketch.model', '');
SELECT pg_catalog.pg_extension_config_dump('sketch.bank', '');
SELECT pg_catalog.pg_extension_config_dump('sketch.codebook', '');
SELECT pg_catalog.pg_extension_config_dump('sketch.codebook_name', '');
SELECT pg_catalog.pg_extension_config_dump('sketch.prototype', '');

-- Models. A graph runs as code in the server, so only superusers, and roles that they grant it to, may load one.

CREATE FUNCTION sketch_load_model() RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'load_shipped_model_wrapper';
COMMENT ON FUNCTION sketch_load_model() IS 'load the network that ships with the extension, unless a model is loaded, and its bank; returns the model_id in use';

CREATE FUNCTION sketch_update_model() RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'update_model_wrapper';
REVOKE EXECUTE ON FUNCTION sketch_update_model() FROM PUBLIC;
COMMENT ON FUNCTION sketch_update_model() IS 'load the network that ships with this version of the extension beside those that are loaded, and its bank; returns its model_id';

CREATE FUNCTION sketch_load_model(name text, onnx bytea, manifest jsonb) RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'load_model_wrapper';
REVOKE EXECUTE ON FUNCTION sketch_load_model(text, bytea, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION sketch_load_model(text, bytea, jsonb) IS 'load a model, an ONNX graph and its manifest; returns its model_id';

CREATE FUNCTION sketch_load_bank(drawings bytea) RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'load_bank_wrapper';
REVOKE EXECUTE ON FUNCTION sketch_load_bank(bytea) FROM PUBLIC;
COMMENT ON FUNCTION sketch_load_bank(bytea) IS 'load a bank of drawings for the hub correction, as sketch-trainer writes it; returns its bank_id';

CREATE FUNCTION sketch_current_model() RETURNS bigint
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'current_model_wrapper';
COMMENT ON FUNCTION sketch_current_model() IS 'model_id in use: the newest model with the name in pg_sketch.model, or the newest of all; NULL if none is loaded';

-- Codebooks.

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
