#!/usr/bin/env bash
# Galleries on Citus: a coordinator and two workers, each with a cluster of its own. Every ranking of a distributed table must be that
# of one table, to the last bit; the statements are those of docs/scaling.md, "Citus". The last line counts the checks.
#
#   tests/citus.sh       PG_CONFIG selects the PostgreSQL, which must have Citus
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/checks.sh
[ -f "$("$PG_CONFIG" --sharedir)/extension/citus.control" ] ||
    { echo "Citus is not installed for $("$PG_CONFIG" --version); set PG_CONFIG to that of a server that has it" >&2; exit 1; }
dir=$(mktemp -d "${TMPDIR:-/var/tmp}/pg_sketch-citus.XXXXXX")
chmod 755 "$dir"
nodes="coordinator worker1 worker2"
clean_up() {
    for node in $nodes; do tests/cluster.sh remove "$dir/$node"; done
    rm -rf "$dir"
}
trap clean_up EXIT
# The nodes reach each other by their sockets.
start() { SETTINGS="shared_preload_libraries = 'citus,pg_sketch'
shared_buffers = 32MB
max_prepared_transactions = 20
citus.local_hostname = '$dir/$1'" tests/cluster.sh start "$dir/$1" >/dev/null; }
# everywhere NAME TABLE COMMAND: runs a command on every shard.
everywhere() {
    local query="SELECT count(*) FILTER (WHERE success), string_agg(result, '; ') FROM run_command_on_shards(:'table', :'command')"
    expect "$1" '^4\|' "$(sql coordinator --set table="$2" --set command="$3" <<<"$query")"
}

for node in $nodes; do
    start "$node"
    sql "$node" -c 'CREATE EXTENSION citus' -c 'CREATE EXTENSION pg_sketch' -c 'SELECT sketch_load_model()' >/dev/null
done
sql coordinator -c "SELECT citus_set_coordinator_host('$dir/coordinator', 5432)" \
    -c "SELECT citus_add_node('$dir/worker1', 5432), citus_add_node('$dir/worker2', 5432)" >/dev/null

# One table of all photos, and the same distributed. Their embeddings are made up, around 40 directions.
sql coordinator >/dev/null <<'SQL'
SET citus.shard_count = 4;
CREATE TABLE whole (id int PRIMARY KEY, tenant int, embedding embedding, fused embedding);
INSERT INTO whole (id, tenant, embedding)
SELECT n, n % 100, (format('[%s]@%s', (SELECT string_agg((sin(n % 40 * i * 1.7) + 0.3 * sin(n * i * 0.37))::real::text, ',') FROM generate_series(1, 512) AS i),
    lpad(to_hex(sketch_current_model()), 8, '0')))::embedding FROM generate_series(1, 5000) AS n;
SELECT sketch_build_codebook('photo', 'whole', prototypes => 16);
UPDATE whole SET fused = sketch_fuse(embedding, 'photo');
CREATE TABLE drawing AS SELECT n, format('[[[0,%s,50,9],[0,30,%s,%s]]]', 60 + 20 * n, 90 - 7 * n, 5 + n) AS strokes FROM generate_series(1, 4) AS n;
SQL
id=$(sql coordinator -c "SELECT sketch_current_codebook('photo')")
# copy CODEBOOK: loads it on the workers, and prints its ids there.
copy() {
    sql coordinator -c "SELECT DISTINCT success, result FROM run_command_on_workers(
        format('SELECT sketch_load_codebook(%L, %L)', '$1', sketch_export_codebook('$1')))"
}
expect "codebook of the workers" "^t\|$id\$" "$(copy photo)"
sql coordinator >/dev/null <<'SQL'
CREATE TABLE photo (id int, tenant int, embedding embedding, fused embedding);
SELECT create_distributed_table('photo', 'id', shard_count => 4);
INSERT INTO photo SELECT * FROM whole;
CREATE INDEX ON photo USING ivfexact (fused);
ANALYZE photo;
SQL

# ranked TABLE: what searches return. Photos at the same distance come in any order, so they are sorted.
ranked() {
    local drawing
    for drawing in $(sql coordinator -c 'SELECT strokes FROM drawing ORDER BY n'); do
        sql coordinator --set table="$1" --set strokes="$drawing" <<'SQL'
SELECT fused <-> (SELECT sketch_embed(:'strokes'::jsonb)) AS d, id FROM :table ORDER BY d LIMIT 10;
SELECT fused <-> (SELECT sketch_embed(:'strokes'::jsonb)) AS d, id FROM :table ORDER BY d LIMIT 1000;
SELECT sketch_distance(fused, :'strokes') AS d, id FROM :table ORDER BY d LIMIT 10;
SELECT sketch_distance(fused, :'strokes'::bytea) AS d, id FROM :table WHERE tenant = 7 ORDER BY d LIMIT 10;
PREPARE search(embedding) AS SELECT fused <-> $1 AS d, id FROM :table ORDER BY d LIMIT 20;
EXECUTE search(sketch_embed(:'strokes'::jsonb));
BEGIN;
DECLARE c CURSOR FOR SELECT fused <-> (SELECT sketch_embed(:'strokes'::jsonb)) AS d, id FROM :table WHERE fused IS NOT NULL ORDER BY d;
FETCH 50 FROM c;
MOVE 1000 FROM c;
FETCH 50 FROM c;
COMMIT;
SQL
    done | awk -F'|' '$1 != distance { run++ } { distance = $1; print run "|" $0 }' | sort -t'|' -k1,1n -k3,3n
}
# same_rankings NAME: whether the rankings of both tables are the same.
same_rankings() {
    ranked whole >"$dir/expected"
    ranked photo >"$dir/found"
    same "$1"
}
same_rankings "rankings"
[ "$(wc -l <"$dir/expected")" -gt 4000 ] || check "there are rankings" 1

# What a shard is sent, and that it finds its rows by the index.
strokes=$(sql coordinator -c 'SELECT strokes FROM drawing WHERE n = 1')
plan() { sql coordinator -c "EXPLAIN (VERBOSE, COSTS OFF) SELECT id FROM photo ORDER BY $1 LIMIT 10"; }
once="fused <-> (SELECT sketch_embed('$strokes'::jsonb))"
found=$(plan "$once")
expect "the vector is computed once" 'Distributed Subplan' "$found"
expect "and sent with the limit" "Query: .*read_intermediate_result.* LIMIT '10'" "$(tr '\n' ' ' <<<"$found")"
check "no shard embeds: $found" "$(grep 'Query: ' <<<"$found" | grep -c 'sketch_embed(' || true)"
expect "index of a shard" 'Index Scan using photo_fused_idx' "$found"
found=$(plan "sketch_distance(fused, '$strokes')")
expect "the drawing is sent with the limit" "Query: .*sketch_distance\(.* LIMIT '10'" "$(tr '\n' ' ' <<<"$found")"
expect "a shard embeds it once" 'InitPlan' "$found"
expect "index of a shard for a drawing" 'Index Scan using photo_fused_idx' "$found"

found=$(sql coordinator -c 'PREPARE search(embedding, bigint) AS SELECT id FROM photo ORDER BY fused <-> $1 LIMIT $2' \
    -c "EXPLAIN (VERBOSE, COSTS OFF) EXECUTE search(sketch_embed('$strokes'::jsonb), 10)")
expect "a vector is sent with the limit" "Query: .*<->\) '\[.* LIMIT '10'" "$(tr '\n' ' ' <<<"$found")"

# An empty shard, and photos without an embedding.
shard=$(sql coordinator -c "SELECT min(shardid) FROM citus_shards WHERE table_name = 'photo'::regclass")
sql coordinator -c "DELETE FROM whole WHERE get_shard_id_for_distribution_column('photo', id) = $shard" \
    -c 'UPDATE whole SET fused = NULL WHERE id % 11 = 0' -c 'UPDATE photo SET fused = NULL WHERE id % 11 = 0'
everywhere "empty a shard" photo "DELETE FROM %1\$s WHERE '%1\$s' = 'photo_$shard'"
same_rankings "an empty shard and NULLs"

# Photos are embedded where they lie, by a statement on each shard.
image=$(base64 -w0 model/tests/fixtures/photo.png)
sql coordinator --set image="$image" >/dev/null <<'SQL'
CREATE TABLE album (id int PRIMARY KEY, image bytea, embedding embedding, fused embedding);
SELECT create_distributed_table('album', 'id', shard_count => 4);
INSERT INTO album SELECT n, decode(:'image', 'base64') FROM generate_series(1, 20) AS n;
SQL
everywhere "embed on the shards" album 'UPDATE %s SET embedding = photo_embed(image) WHERE embedding IS NULL'
everywhere "fuse on the shards" album "UPDATE %s SET fused = sketch_fuse(embedding, 'photo') WHERE fused IS NULL"
expect "embedded by a statement" "^20\|$id\|$id\$" "$(sql coordinator -c 'SELECT count(fused), min(sketch_codebook_id(fused)), max(sketch_codebook_id(fused)) FROM album')"

# Or by the gallery's trigger.
sql coordinator >/dev/null <<'SQL'
CREATE TABLE gallery (id int PRIMARY KEY, image bytea);
SELECT sketch_enable('gallery', 'image', codebook => 'photo');
SET citus.enable_unsafe_triggers = on;
SELECT create_distributed_table('gallery', 'id', shard_count => 4);
SQL
insert() { sql coordinator -c "INSERT INTO gallery (id, image) SELECT n, decode('$image', 'base64') FROM generate_series($1, $2) AS n" 2>&1 || true; }
expect "a shard that is not enabled" 'is not enabled for sketches' "$(insert 1 8)"
enable="DO \$do\$ BEGIN
    IF NOT EXISTS (SELECT FROM sketch.gallery WHERE relation = '%1\$s'::regclass) THEN
        SET LOCAL citus.enable_manual_changes_to_shards = on;
        PERFORM sketch_enable('%1\$s', 'image', codebook => 'photo');
    END IF;
END \$do\$"
everywhere "enable the shards" gallery "$enable"
expect "insert" '^$' "$(insert 1 20)"
expect "embedded by the trigger" "^20\|$id\|$id\$" "$(sql coordinator -c 'SELECT count(fused), min(sketch_codebook_id(fused)), max(sketch_codebook_id(fused)) FROM gallery')"

# A shard that moves takes its photos along, but not its gallery.
other="CASE nodename WHEN '$dir/worker1' THEN '$dir/worker2' ELSE '$dir/worker1' END"
sql coordinator -c "SELECT citus_move_shard_placement(shardid, nodename, 5432, $other, 5432, 'block_writes')
    FROM citus_shards WHERE table_name = 'gallery'::regclass ORDER BY shardid LIMIT 1" >/dev/null
expect "photos of a shard that moved" '^20$' "$(sql coordinator -c "SELECT count(*) FROM (SELECT id FROM gallery ORDER BY $once LIMIT 50) AS found")"
expect "insert after a move" 'is not enabled for sketches' "$(insert 21 40)"
everywhere "enable the shards again" gallery "$enable"
expect "insert after that" '^$' "$(insert 21 40)"
expect "embedded after a move" '^40$' "$(sql coordinator -c 'SELECT count(fused) FROM gallery')"

# A new codebook: a second column is filled while people search the first.
sql coordinator -c "SELECT sketch_build_codebook('photo_2', 'whole', prototypes => 8)" -c 'ALTER TABLE photo ADD fused_2 embedding' \
    -c 'ALTER TABLE whole ADD fused_2 embedding' -c "UPDATE whole SET fused_2 = sketch_fuse(embedding, 'photo_2') WHERE fused IS NOT NULL" >/dev/null
next=$(sql coordinator -c "SELECT sketch_current_codebook('photo_2')")
expect "new codebook of the workers" "^t\|$next\$" "$(copy photo_2)"
everywhere "fuse with the new codebook" photo "UPDATE %s SET fused_2 = sketch_fuse(embedding, 'photo_2') WHERE fused_2 IS NULL AND fused IS NOT NULL"
expect "one codebook in each column" "^$id\|$id\|$next\|$next\$" \
    "$(sql coordinator -c 'SELECT min(sketch_codebook_id(fused)), max(sketch_codebook_id(fused)), min(sketch_codebook_id(fused_2)), max(sketch_codebook_id(fused_2)) FROM photo')"
sql coordinator -c 'CREATE INDEX CONCURRENTLY ON photo USING ivfexact (fused_2)'
for table in photo whole; do sql coordinator -c "ALTER TABLE $table RENAME fused TO fused_1" -c "ALTER TABLE $table RENAME fused_2 TO fused"; done
same_rankings "rankings by the new codebook"

# A worker that is down is an error, which loses nothing; after its return the search goes on.
before=$(sql coordinator -c 'SELECT count(*) FROM photo')
search="SELECT count(*) FROM (SELECT id FROM photo ORDER BY $once LIMIT 10) AS found"
tests/cluster.sh stop "$dir/worker2"
expect "search without a worker" 'connection to the remote node .*worker2.* failed' "$(sql coordinator -c "$search" 2>&1 || true)"
expect "insert without a worker" 'connection to the remote node .*worker2.* failed' \
    "$(sql coordinator -c 'INSERT INTO photo (id, embedding) SELECT id + 100000, embedding FROM whole' 2>&1 || true)"
start worker2
expect "search after its return" '^10$' "$(sql coordinator -c "$search")"
expect "no half of an insert" "^$before\$" "$(sql coordinator -c 'SELECT count(*) FROM photo')"
same_rankings "rankings after its return"

echo "citus: $passed passed, $failed failed"
[ "$failed" = 0 ]
