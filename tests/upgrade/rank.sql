-- Everything that a search returns, by the index and without it. Two runs that print the same rank the same; the distances are
-- printed to five digits, because a later version may add in another order.
\set ON_ERROR_STOP on
\pset tuples_only on
\pset format unaligned
\set drawing '''[[[0,99,50],[0,30,80]]]'''
SET enable_seqscan = off;
SELECT 'index', id, round((fused <-> sketch_embed(:drawing::jsonb))::numeric, 5) FROM photo ORDER BY fused <-> sketch_embed(:drawing::jsonb) LIMIT 100;
EXPLAIN (COSTS OFF) SELECT id FROM photo ORDER BY fused <-> sketch_embed(:drawing::jsonb) LIMIT 100 \g |grep -o 'Index Scan.*'
SELECT 'index', id, round((e <-> sketch_embed(:drawing::jsonb))::numeric, 5) FROM plain ORDER BY e <-> sketch_embed(:drawing::jsonb) LIMIT 50;
RESET enable_seqscan;
SET enable_indexscan = off;
SELECT 'scan', id, sketch_codebook_id(fused), round(sketch_distance(fused, :drawing::bytea)::numeric, 5)
FROM photo ORDER BY sketch_distance(fused, :drawing::bytea), id;
SELECT 'scan', "Id", sketch_codebook_id("Fused"), round(sketch_distance("Fused", :drawing::bytea)::numeric, 5)
FROM "Art & Craft"."Photo" ORDER BY sketch_distance("Fused", :drawing::bytea), "Id";
SELECT id, md5(embedding::text), md5(fused::text) FROM photo ORDER BY id;
SELECT model_id, name, encode(sha256, 'hex') FROM sketch.model ORDER BY 1;
SELECT codebook_id, encode(sha256, 'hex') FROM sketch.codebook ORDER BY 1;
SELECT md5(string_agg(p::text, '' ORDER BY p)) FROM sketch.prototype AS p;
SELECT 'check', visible FROM sketch_check_index('photo_fused_idx');
