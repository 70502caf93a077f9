-- The access method "ivfexact": an exact index for rows in the order of their distance.

CREATE FUNCTION sketch_ivfexact_handler(internal) RETURNS index_am_handler
    LANGUAGE c VOLATILE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'ivfexact_handler_wrapper';
COMMENT ON FUNCTION sketch_ivfexact_handler(internal) IS 'ivfexact index access method handler';

CREATE ACCESS METHOD ivfexact TYPE INDEX HANDLER sketch_ivfexact_handler;
COMMENT ON ACCESS METHOD ivfexact IS 'ivfexact index access method: rows in the exact order of their distance from a query';

CREATE OPERATOR CLASS embedding_l2_ops DEFAULT FOR TYPE embedding USING ivfexact AS
    OPERATOR 1 <-> (embedding, embedding) FOR ORDER BY pg_catalog.float_ops;
COMMENT ON OPERATOR CLASS embedding_l2_ops USING ivfexact IS 'L2 distance';
COMMENT ON OPERATOR FAMILY embedding_l2_ops USING ivfexact IS 'L2 distance';

CREATE FUNCTION sketch_check_index(index regclass, OUT lists bigint, OUT rows bigint, OUT visible bigint, OUT free bigint,
                                   OUT pages bigint, OUT unused_pages bigint) RETURNS SETOF record
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE COST 10000 ROWS 1 AS 'MODULE_PATHNAME', 'sketch_check_index_wrapper';
COMMENT ON FUNCTION sketch_check_index(regclass)
    IS 'verify an ivfexact index against itself and its table; raises an error, or returns what it holds';

CREATE FUNCTION sketch_index_scan(OUT lists bigint, OUT rows bigint, OUT refined bigint, OUT pages bigint, OUT rounds bigint)
    RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 1 AS 'MODULE_PATHNAME', 'sketch_index_scan_wrapper';
COMMENT ON FUNCTION sketch_index_scan()
    IS 'what the last ivfexact scan of this connection visited';

-- Distances alone are compared: those of an index are the operator's, to the bit, and ids of equal distance may differ.
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
