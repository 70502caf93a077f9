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
