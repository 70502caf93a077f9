#!/usr/bin/env bash
# Search over shards by postgres_fdw: a coordinator, and one, two and five servers behind it, each with a cluster of its own. Every
# ranking must be that of one table, to the last bit, after a shard's failure (shards_failure.sh) and on replicas (shards_replicas.sh),
# too; the last line counts the checks.
#
#   tests/shards.sh      PG_CONFIG selects the PostgreSQL, which must have postgres_fdw
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/checks.sh
shards=5 photos=5000 drawings=4
dir=$(mktemp -d "${TMPDIR:-/var/tmp}/pg_sketch-shards.XXXXXX")
chmod 755 "$dir"
clean_up() {
    for cluster in "$dir"/*/; do tests/cluster.sh remove "${cluster%/}"; done
    rm -rf "$dir"
}
trap clean_up EXIT
start() { SETTINGS="shared_buffers = 32MB
wal_level = logical" tests/cluster.sh start "$dir/$1" >/dev/null; }

# eventually SERVER QUERY: waits until the query returns true, for minutes if the machine is busy.
eventually() {
    local i
    for ((i = 0; i < 3000; i++)); do
        [ "$(sql "$1" -c "$2" 2>&1)" != t ] || return 0
        sleep 0.1
    done
    echo "failed: waited in vain on $1 for: $2" >&2
    exit 1
}

# The shards are copies of a cluster with extension and model.
start shard1
sql shard1 -c "CREATE EXTENSION pg_sketch; SELECT sketch_load_model()" >/dev/null
tests/cluster.sh stop "$dir/shard1"
for ((i = 2; i <= shards; i++)); do
    mkdir "$dir/shard$i"
    cp -a "$dir/shard1/data" "$dir/shard$i/"
    sed -i "s|$dir/shard1|$dir/shard$i|" "$dir/shard$i/data/postgresql.conf"
    [ "$(id -u)" != 0 ] || chown postgres "$dir/shard$i"
done
mkdir "$dir/coordinator"
cp -a "$dir/shard1/data" "$dir/coordinator/"
sed -i "s|$dir/shard1|$dir/coordinator|" "$dir/coordinator/data/postgresql.conf"
[ "$(id -u)" != 0 ] || chown postgres "$dir/coordinator"
for ((i = 1; i <= shards; i++)); do start "shard$i"; done
start coordinator

# One table of all photos. Their embeddings are made up, around 40 directions.
sql coordinator >/dev/null <<SQL
CREATE EXTENSION postgres_fdw;
CREATE TABLE whole (id int PRIMARY KEY, tenant int, embedding embedding, fused embedding);
INSERT INTO whole (id, tenant, embedding)
SELECT n, n % 100, (format('[%s]@%s', (SELECT string_agg((sin(n % 40 * i * 1.7) + 0.3 * sin(n * i * 0.37))::real::text, ',') FROM generate_series(1, 512) AS i),
    lpad(to_hex(sketch_current_model()), 8, '0')))::embedding FROM generate_series(1, $photos) AS n;
SELECT sketch_build_codebook('photo', 'whole', prototypes => 16);
UPDATE whole SET fused = sketch_fuse(embedding, 'photo');
CREATE TABLE drawing AS SELECT n, format('[[[0,%s,50,9],[0,30,%s,%s]]]', 60 + 20 * n, 90 - 7 * n, 5 + n) AS strokes FROM generate_series(1, 4) AS n;
SQL

# A codebook is the same on every server: its id is a digest.
codebook=$(sql coordinator -c "SELECT sketch_export_codebook('photo')")
id=$(sql coordinator -c "SELECT sketch_current_codebook('photo')")
for ((i = 1; i <= shards; i++)); do
    found=$(sql "shard$i" -c "SELECT sketch_load_codebook('photo', \$\$$codebook\$\$)")
    expect "codebook of shard $i" "^$id\$" "$found"
done

# distribute COUNT: a schema on the coordinator whose table lies on so many shards.
distribute() {
    local count=$1 i
    sql coordinator -c "CREATE SCHEMA on_$count" \
        -c "CREATE TABLE on_$count.photo (id int NOT NULL, tenant int, fused embedding) PARTITION BY HASH (id)"
    for ((i = 1; i <= count; i++)); do
        sql "shard$i" -c "CREATE TABLE photo_$count (id int NOT NULL, tenant int, fused embedding)"
        sql coordinator -c "CREATE FOREIGN TABLE on_$count.photo_$i PARTITION OF on_$count.photo
            FOR VALUES WITH (MODULUS $count, REMAINDER $((i - 1))) SERVER shard$i OPTIONS (schema_name 'public', table_name 'photo_$count')"
    done
    sql coordinator -c "INSERT INTO on_$count.photo SELECT id, tenant, fused FROM whole"
    for ((i = 1; i <= count; i++)); do
        sql "shard$i" -c "CREATE INDEX ON photo_$count USING ivfexact (fused)" -c "VACUUM ANALYZE photo_$count"
    done
}
for ((i = 1; i <= shards; i++)); do
    sql coordinator -c "CREATE SERVER shard$i FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$dir/shard$i', dbname 'postgres',
            extensions 'pg_sketch', fetch_size '10', parallel_commit 'true', batch_size '1000', options '-c cursor_tuple_fraction=0.0005')" \
        -c "CREATE USER MAPPING FOR postgres SERVER shard$i OPTIONS (user 'postgres')"
done

# ranked TABLE [SERVER]: what a search returns, for the first drawings and each kind of search. Photos at the same distance come in any
# order, so they are sorted.
ranked() {
    local drawing
    for drawing in $(sql coordinator -c "SELECT strokes FROM drawing WHERE n <= $drawings ORDER BY n"); do
        sql "${2:-coordinator}" --set table="$1" --set strokes="$drawing" <<'SQL'
SELECT sketch_distance(fused, :'strokes') AS d, id FROM :table ORDER BY d LIMIT 10;
SELECT sketch_distance(fused, :'strokes'::bytea) AS d, id FROM :table ORDER BY d LIMIT 1000;
SELECT fused <-> sketch_embed(:'strokes'::jsonb) AS d, id FROM :table WHERE tenant = 7 ORDER BY d LIMIT 10;
PREPARE search(bytea) AS SELECT fused <-> sketch_embed($1) AS d, id FROM :table ORDER BY d LIMIT 20;
SET plan_cache_mode = force_generic_plan;
EXECUTE search(:'strokes');
BEGIN;
DECLARE c CURSOR FOR SELECT sketch_distance(fused, :'strokes') AS d, id FROM :table WHERE fused IS NOT NULL ORDER BY d;
FETCH 50 FROM c;
MOVE 1000 FROM c;
FETCH 50 FROM c;
COMMIT;
SQL
    done | awk -F'|' '$1 != distance { run++ } { distance = $1; print run "|" $0 }' | sort -t'|' -k1,1n -k3,3n
}
ranked whole >"$dir/expected"
for count in 1 2 "$shards"; do
    distribute "$count"
    ranked "on_$count.photo" >"$dir/found"
    same "rankings of $count shards"
done
[ "$(wc -l <"$dir/expected")" -gt 4000 ] || check "there are rankings" 1

# The README's statement: the drawing is embedded once, here; each shard gets the vector and orders by it.
strokes=$(sql coordinator -c "SELECT strokes FROM drawing WHERE n = 1")
for call in "sketch_distance(fused, '$strokes')" "sketch_distance(fused, '$strokes'::bytea)" "fused <-> sketch_embed('$strokes'::jsonb)"; do
    plan=$(sql coordinator -c "EXPLAIN (VERBOSE, COSTS OFF) SELECT id FROM on_5.photo ORDER BY $call LIMIT 10")
    expect "plan of $call" 'Merge Append' "$plan"
    expect "sent for $call" 'Remote SQL: .* ORDER BY \(fused OPERATOR\(public\.<->\) \$1::public\.embedding\) ASC' "$plan"
    expect "drawing of $call" "InitPlan" "$plan"
    check "calls in $call" "$(grep 'Remote SQL' <<<"$plan" | grep -c sketch_embed || true)"
done
# No shard sends more than the limit, in packets of fetch_size.
fetched=$(sql coordinator -c "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) SELECT id FROM on_5.photo ORDER BY sketch_distance(fused, '$strokes') LIMIT 10" |
    sed -nE 's/.*Foreign Scan.*actual rows=([0-9]+).*/\1/p' | awk '{ sum += $1 } END { print sum }')
check "rows fetched: $fetched" "$((fetched > 10 * shards))"
# The function of docs/scaling.md asks all shards at the same time: two wait for their tables, and then the ten are the same.
function=$(sed -n '/^    CREATE FUNCTION nearest_photos/,/^    END \$\$;/p' docs/scaling.md)
sql coordinator -c "CREATE EXTENSION dblink" -c "${function/FROM photo/FROM photo_5}"
ten=$(sql coordinator -c "SELECT id FROM whole ORDER BY sketch_distance(fused, '$strokes') LIMIT 10" | xargs)
together() { echo "SELECT id FROM nearest_photos('{shard1,shard2,shard3,shard4,shard5}', sketch_embed('$strokes'::jsonb), $1) ORDER BY distance LIMIT 10;"; }
for shard in shard1 shard2; do
    sql $shard -c "BEGIN; LOCK TABLE photo_5; SELECT pg_sleep(600)" >/dev/null 2>&1 &
    eventually $shard "SELECT count(*) = 1 FROM pg_locks WHERE relation = 'photo_5'::regclass AND mode = 'AccessExclusiveLock' AND granted"
done
sql coordinator -c "$(together 10)" >"$dir/found" &
search=$!
for shard in shard1 shard2; do
    eventually $shard "SELECT count(*) = 1 FROM pg_locks WHERE relation = 'photo_5'::regclass AND NOT granted"
done
for shard in shard1 shard2; do
    sql $shard -c "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)' AND pid <> pg_backend_pid()" >/dev/null
done
wait "$search"
expect "same ten, asked together" "^$ten\$" "$(xargs <"$dir/found")"
# After an error, or a search that was canceled, the session's next search reads nothing that is left of it.
{ together -1; echo "SET statement_timeout = '1ms';"; together 10; echo 'RESET statement_timeout;'; together 10; } |
    sql coordinator --set ON_ERROR_STOP=0 -f - >"$dir/found" 2>"$dir/errors"
expect "errors of a search together" 'LIMIT must not be negative' "$(head -n 1 "$dir/errors")"
expect "same ten after an error" "^$ten\$" "$(xargs <"$dir/found")"
# A shard that dies between two searches of a session is an error, too, and no photos of the others.
{ together 10; echo "\\! pkill -KILL -f '^postgres: .*postgres postgres' -P \"\$(head -n 1 $dir/shard2/data/postmaster.pid)\""; echo 'SELECT pg_sleep(1);'; together 10; } |
    sql coordinator --set ON_ERROR_STOP=0 -f - >"$dir/found" 2>"$dir/errors"
expect "ten before the death" "^$ten\$" "$(head -n 10 "$dir/found" | xargs)"
check "nothing after it: $(tail -n +11 "$dir/found" | xargs)" "$(tail -n +11 "$dir/found" | grep -c . || true)"
expect "error after the death" 'ERROR' "$(cat "$dir/errors")"
eventually shard2 'SELECT true'
# And the shard finds its rows by the index.
for ((i = 1; i <= shards; i++)); do
    vector=$(sql "shard$i" -c "SELECT fused FROM photo_5 LIMIT 1")
    expect "index of shard $i" 'Index Scan' "$(sql "shard$i" -c "SET cursor_tuple_fraction = 0.0005" \
        -c "EXPLAIN (COSTS OFF) DECLARE c CURSOR FOR SELECT id FROM photo_5 ORDER BY fused <-> '$vector'")"
done

# An empty shard, and photos without an embedding.
sql shard3 -c "TRUNCATE photo_5"
sql coordinator -c "DELETE FROM whole WHERE id IN (SELECT id FROM whole EXCEPT SELECT id FROM on_5.photo)" -c "UPDATE whole SET fused = NULL WHERE id % 11 = 0"
for ((i = 1; i <= shards; i++)); do sql "shard$i" -c "UPDATE photo_5 SET fused = NULL WHERE id % 11 = 0"; done
ranked whole >"$dir/expected"
ranked on_5.photo >"$dir/found"
same "an empty shard and NULLs"

# A photo is embedded where it lies: the shard's trigger does it, and the coordinator needs no column of photos to search.
photo=$(base64 -w0 model/tests/fixtures/photo.png)
sql shard1 -c "CREATE TABLE album (id int, image bytea)" -c "SELECT sketch_enable('album', 'image', codebook => 'photo')" >/dev/null
sql coordinator -c "CREATE FOREIGN TABLE album (id int, image bytea) SERVER shard1" -c "INSERT INTO album VALUES (1, decode('$photo', 'base64'))"
expect "embedded on the shard" "^$id\$" "$(sql shard1 -c "SELECT sketch_codebook_id(fused) FROM album")"

# A shard that is down is an error, which loses nothing; after its return the search goes on.
tests/cluster.sh stop "$dir/shard2"
search="SELECT count(*) FROM (SELECT id FROM on_5.photo ORDER BY sketch_distance(fused, '$strokes') LIMIT 10) AS found"
expect "search without a shard" 'could not connect to server "shard2"' "$(sql coordinator -c "$search" 2>&1 || true)"
before=$(sql coordinator -c "SELECT count(*) FROM on_1.photo")
expect "insert without a shard" 'could not connect to server "shard2"' \
    "$(sql coordinator -c "INSERT INTO on_5.photo SELECT id + 100000, tenant, fused FROM whole" 2>&1 || true)"
start shard2
expect "after its return" '^10$' "$(sql coordinator -c "$search")"
expect "no half of an insert" '^0$' "$(sql coordinator -c "SELECT count(*) FROM on_5.photo WHERE id > 100000")"
expect "other tables" "^$before\$" "$(sql coordinator -c "SELECT count(*) FROM on_1.photo")"

. tests/shards_failure.sh
. tests/shards_replicas.sh

echo "shards: $passed passed, $failed failed"
[ "$failed" = 0 ]
