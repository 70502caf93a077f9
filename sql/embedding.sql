-- The type "embedding", its casts and its distance.

CREATE TYPE embedding;

CREATE FUNCTION sketch_embedding_in(cstring) RETURNS embedding
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'embedding_in_wrapper';
CREATE FUNCTION sketch_embedding_out(embedding) RETURNS cstring
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'embedding_out_wrapper';
CREATE FUNCTION sketch_embedding_recv(internal) RETURNS embedding
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'embedding_recv_wrapper';
CREATE FUNCTION sketch_embedding_send(embedding) RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'embedding_send_wrapper';

-- STORAGE main: the photo moves out of line first, and its embeddings stay in the row, where a scan reads them.
CREATE TYPE embedding (
    INPUT = sketch_embedding_in,
    OUTPUT = sketch_embedding_out,
    RECEIVE = sketch_embedding_recv,
    SEND = sketch_embedding_send,
    INTERNALLENGTH = variable,
    ALIGNMENT = int4,
    STORAGE = main
);
COMMENT ON TYPE embedding IS 'output of the network for one image: half-precision values, tagged with their model and codebook';

COMMENT ON FUNCTION sketch_embedding_in(cstring) IS 'I/O';
COMMENT ON FUNCTION sketch_embedding_out(embedding) IS 'I/O';
COMMENT ON FUNCTION sketch_embedding_recv(internal) IS 'I/O';
COMMENT ON FUNCTION sketch_embedding_send(embedding) IS 'I/O';

-- Casts. real[] does not carry the tags of model and codebook.

CREATE FUNCTION sketch_from_array(real[]) RETURNS embedding
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'embedding_from_array_wrapper';
COMMENT ON FUNCTION sketch_from_array(real[]) IS 'embedding without tags: it compares with embeddings of every model';

CREATE FUNCTION sketch_to_array(embedding) RETURNS real[]
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'embedding_to_array_wrapper';
COMMENT ON FUNCTION sketch_to_array(embedding) IS 'values of an embedding';

-- Most drivers send floating-point numbers in double precision.
CREATE FUNCTION sketch_from_array(double precision[]) RETURNS embedding
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN sketch_from_array($1::real[]);
COMMENT ON FUNCTION sketch_from_array(double precision[]) IS 'embedding without tags: it compares with embeddings of every model';

CREATE CAST (real[] AS embedding) WITH FUNCTION sketch_from_array(real[]) AS ASSIGNMENT;
CREATE CAST (double precision[] AS embedding) WITH FUNCTION sketch_from_array(double precision[]) AS ASSIGNMENT;
CREATE CAST (embedding AS real[]) WITH FUNCTION sketch_to_array(embedding) AS ASSIGNMENT;

-- Properties of an embedding.

CREATE FUNCTION sketch_dimension(embedding) RETURNS integer
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'embedding_dimension_wrapper';
COMMENT ON FUNCTION sketch_dimension(embedding) IS 'number of values';

CREATE FUNCTION sketch_model_id(embedding) RETURNS bigint
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'embedding_model_id_wrapper';
COMMENT ON FUNCTION sketch_model_id(embedding) IS 'model that made the embedding, NULL if unknown';

CREATE FUNCTION sketch_codebook_id(embedding) RETURNS bigint
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'embedding_codebook_id_wrapper';
COMMENT ON FUNCTION sketch_codebook_id(embedding) IS 'codebook that fused the embedding, NULL if it is not fused';

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
