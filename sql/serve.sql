-- Counters of what was embedded: of all connections if there is an inference worker, otherwise of this connection.

CREATE FUNCTION sketch_stat_counters()
    RETURNS TABLE (model_id bigint, device text, place text, requests bigint, images bigint, batches bigint,
                   wait_time double precision, run_time double precision, errors bigint, left_alone bigint,
                   stats_reset timestamptz)
    LANGUAGE c VOLATILE PARALLEL SAFE ROWS 10 AS 'MODULE_PATHNAME', 'stat_counters_wrapper';
COMMENT ON FUNCTION sketch_stat_counters() IS 'counters behind sketch_stat';

CREATE VIEW sketch_stat AS
SELECT c.model_id, m.name AS model, c.device, c.place, c.requests, c.images, c.batches,
       c.images::double precision / nullif(c.batches, 0) AS mean_batch_size,
       c.wait_time, c.wait_time / nullif(c.images + c.errors + c.left_alone, 0) AS mean_wait_time,
       c.run_time, c.run_time / nullif(c.batches, 0) AS mean_run_time,
       c.errors, c.left_alone, c.stats_reset
FROM sketch_stat_counters() AS c LEFT JOIN sketch.model AS m USING (model_id);
GRANT SELECT ON sketch_stat TO PUBLIC;
COMMENT ON VIEW sketch_stat IS 'embedded images by model, device and place (inference worker or connections); times in milliseconds';
COMMENT ON COLUMN sketch_stat.requests IS 'calls that embedded one image or, in bulk, many';
COMMENT ON COLUMN sketch_stat.batches IS 'runs of the network';
COMMENT ON COLUMN sketch_stat.wait_time IS 'total time that images waited for a run';
COMMENT ON COLUMN sketch_stat.run_time IS 'total time that the network ran';
COMMENT ON COLUMN sketch_stat.errors IS 'images that the network failed to embed';
COMMENT ON COLUMN sketch_stat.left_alone IS 'images whose connection did not wait for the result: canceled, terminated or timed out';

CREATE FUNCTION sketch_stat_reset() RETURNS void
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'stat_reset_wrapper';
REVOKE EXECUTE ON FUNCTION sketch_stat_reset() FROM PUBLIC;
COMMENT ON FUNCTION sketch_stat_reset() IS 'reset the counters of sketch_stat, and those of this connection in sketch_status';
