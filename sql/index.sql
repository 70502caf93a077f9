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
