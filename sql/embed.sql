CREATE FUNCTION sketch_embed_support(internal) RETURNS internal
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'embed_support_wrapper';
COMMENT ON FUNCTION sketch_embed_support(internal) IS 'planner support: a constant image is embedded once';

-- From images to embeddings. STABLE, because they read sketch.model and settings. PARALLEL RESTRICTED, so that parallel
-- workers do not each load the network.

CREATE FUNCTION sketch_embed(drawing bytea) RETURNS embedding
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED SUPPORT sketch_embed_support AS 'MODULE_PATHNAME', 'sketch_embed_bytea_wrapper';
COMMENT ON FUNCTION sketch_embed(bytea) IS 'embed a drawing: PNG, JPEG, WebP, SVG, strokes as JSON, or a data URI of one of these';

CREATE FUNCTION sketch_embed(drawing bytea, model text) RETURNS embedding
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED SUPPORT sketch_embed_support AS 'MODULE_PATHNAME', 'sketch_embed_bytea_wrapper';
COMMENT ON FUNCTION sketch_embed(bytea, text) IS 'embed a drawing with the model of that name';

CREATE FUNCTION sketch_embed(drawing jsonb) RETURNS embedding
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED SUPPORT sketch_embed_support AS 'MODULE_PATHNAME', 'sketch_embed_jsonb_wrapper';
COMMENT ON FUNCTION sketch_embed(jsonb) IS 'embed a drawing given as strokes: [[[x, ...], [y, ...]], ...] or [[{"x": x, "y": y}, ...], ...]';

CREATE FUNCTION sketch_embed(drawing jsonb, model text) RETURNS embedding
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED SUPPORT sketch_embed_support AS 'MODULE_PATHNAME', 'sketch_embed_jsonb_wrapper';
COMMENT ON FUNCTION sketch_embed(jsonb, text) IS 'embed a drawing given as strokes with the model of that name';

-- A parameter or literal without a type is text. The bytes of a text are those of the drawing.
CREATE FUNCTION sketch_embed(drawing text) RETURNS embedding
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED SUPPORT sketch_embed_support AS 'MODULE_PATHNAME', 'sketch_embed_bytea_wrapper';
COMMENT ON FUNCTION sketch_embed(text) IS 'embed a drawing given as text: strokes as JSON, SVG, or a data URI';

CREATE FUNCTION sketch_embed(drawing text, model text) RETURNS embedding
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED SUPPORT sketch_embed_support AS 'MODULE_PATHNAME', 'sketch_embed_bytea_wrapper';
COMMENT ON FUNCTION sketch_embed(text, text) IS 'embed a drawing given as text with the model of that name';

CREATE FUNCTION photo_embed(photo bytea) RETURNS embedding
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED SUPPORT sketch_embed_support AS 'MODULE_PATHNAME', 'photo_embed_wrapper';
COMMENT ON FUNCTION photo_embed(bytea) IS 'embed a photo: PNG, JPEG or WebP';

CREATE FUNCTION photo_embed(photo bytea, model text) RETURNS embedding
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED SUPPORT sketch_embed_support AS 'MODULE_PATHNAME', 'photo_embed_wrapper';
COMMENT ON FUNCTION photo_embed(bytea, text) IS 'embed a photo with the model of that name';

CREATE FUNCTION sketch_fuse(embedding, codebook text, owner text DEFAULT current_user) RETURNS embedding
    LANGUAGE c STABLE STRICT PARALLEL SAFE COST 1000 AS 'MODULE_PATHNAME', 'sketch_fuse_with_wrapper';
COMMENT ON FUNCTION sketch_fuse(embedding, text, text) IS 'fused embedding: weight * embedding + (1 - weight) * nearest prototypes, and its channel';

CREATE FUNCTION sketch_correct(embedding) RETURNS embedding
    LANGUAGE c STABLE STRICT PARALLEL SAFE COST 1000 AS 'MODULE_PATHNAME', 'sketch_correct_wrapper';
COMMENT ON FUNCTION sketch_correct(embedding) IS 'embedding with the hub correction of its model, as a gallery without a codebook stores it';

-- The planner inlines them to the operator, so that an index on "fused" can be used.
CREATE FUNCTION sketch_distance(fused embedding, drawing bytea) RETURNS double precision
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED
    RETURN fused OPERATOR(@extschema@.<->) sketch_embed(drawing);
COMMENT ON FUNCTION sketch_distance(embedding, bytea) IS 'L2 distance to a drawing';

CREATE FUNCTION sketch_distance(fused embedding, drawing jsonb) RETURNS double precision
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED
    RETURN fused OPERATOR(@extschema@.<->) sketch_embed(drawing);
COMMENT ON FUNCTION sketch_distance(embedding, jsonb) IS 'L2 distance to a drawing given as strokes';

CREATE FUNCTION sketch_distance(fused embedding, drawing text) RETURNS double precision
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED
    RETURN fused OPERATOR(@extschema@.<->) sketch_embed(drawing);
COMMENT ON FUNCTION sketch_distance(embedding, text) IS 'L2 distance to a drawing given as text';

CREATE FUNCTION sketch_status() RETURNS TABLE (name text, value text)
    LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 12 AS 'MODULE_PATHNAME', 'sketch_status_wrapper';
COMMENT ON FUNCTION sketch_status() IS 'versions, device, loaded models, the inference worker, and counters of this connection';
