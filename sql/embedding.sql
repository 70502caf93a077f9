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

CREATE FUNCTION sketch_distance(a embedding, b embedding) RETURNS double precision
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE COST 5
    RETURN a OPERATOR(@extschema@.<->) b;
COMMENT ON FUNCTION sketch_distance(embedding, embedding) IS 'L2 distance';

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
