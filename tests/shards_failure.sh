# A shard that is killed in the middle of a search, of an insert and of a change of codebook. Part of tests/shards.sh.

# hold SERVER STATEMENT: a transaction that keeps the locks of a statement until the server is killed.
hold() {
    sql "$1" -c "BEGIN ISOLATION LEVEL REPEATABLE READ" -c "$2" -c "SELECT pg_sleep(3600)" >/dev/null 2>&1 &
    holder=$!
    eventually "$1" "SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'"
}
# begin SERVER STATEMENT: runs it in the background, until it waits for what hold holds on server $3 (by default the same).
begin() {
    sql "$1" -c "$2" >"$dir/begun" 2>&1 &
    begun=$!
    eventually "${3:-$1}" "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'client backend' AND wait_event_type = 'Lock'"
}
# crash SERVER: kills it, and waits for what begin and hold have begun. Sets "output" to what the statement said.
crash() {
    tests/cluster.sh kill "$dir/$1"
    wait "$begun" || true
    wait "$holder" || true
    output=$(cat "$dir/begun")
}
# revive SERVER: starts it again; pg_ctl says that another might be running.
revive() { start "$1" 2>"$dir/revived" || { cat "$dir/revived" >&2; exit 1; }; }
# What libpq, and psql on the shard itself, say of a server that dies.
lost='server closed the connection unexpectedly|connection to server was lost'

# One drawing is enough to see what was lost.
drawings=1

# A gallery over three shards, as docs/scaling.md sets it up, and one table with the same photos. Embeddings that are made up come with
# their photos, as in a copy; a photo without is embedded by the trigger.
members=3
columns="id int PRIMARY KEY, tenant int, image bytea"
sql coordinator -c "CREATE SCHEMA gallery" -c "CREATE TABLE one ($columns)" -c "SELECT sketch_enable('one', 'image', codebook => 'photo')" \
    -c "CREATE TABLE gallery.photo (id int NOT NULL, tenant int, image bytea, embedding embedding, fused embedding) PARTITION BY HASH (id)" >/dev/null
for ((i = 1; i <= members; i++)); do
    sql "shard$i" -c "CREATE TABLE photo ($columns)" -c "SELECT sketch_enable('photo', 'image', codebook => 'photo')" \
        -c "CREATE INDEX ON photo USING ivfexact (fused)" >/dev/null
    sql coordinator -c "CREATE FOREIGN TABLE gallery.photo_$i PARTITION OF gallery.photo
        FOR VALUES WITH (MODULUS $members, REMAINDER $((i - 1))) SERVER shard$i OPTIONS (schema_name 'public', table_name 'photo')"
done
# photos FIRST OFFSET COUNT: rows to insert with ids from FIRST on, those of shard 2 last. Equal embeddings would rank in any order, so
# each is inserted once.
photos() {
    echo "SELECT $1 + n, n % 100, '\\x00'::bytea, embedding
        FROM (SELECT row_number() OVER (ORDER BY id) - $2 AS n, embedding FROM whole ORDER BY id OFFSET $2 LIMIT $3) AS photos
        ORDER BY satisfies_hash_partition('gallery.photo'::regclass, $members, 1, ($1 + n)::int)"
}
# add TABLE FIRST OFFSET COUNT [CLAUSE]
add() { sql coordinator -c "INSERT INTO $1 (id, tenant, image, embedding) $(photos "$2" "$3" "$4") ${5:-}"; }
add one 0 0 2000
add gallery.photo 0 0 2000
# found FIRST: how many photos from an id on each shard has, of 300.
found() {
    for ((i = 1; i <= members; i++)); do sql "shard$i" -c "SELECT count(*) FROM photo WHERE id > $1 AND id <= $1 + 10000"; done | xargs
}
# stored COLUMN TABLE SERVER...: all rows that servers have.
stored() { for server in "${@:3}"; do sql "$server" -c "SELECT id, tenant, md5(sketch_embedding_send(embedding)), md5(sketch_embedding_send($1)) FROM $2"; done | sort; }
# truth [VIEW COLUMN]: rankings and rows of the one table, for "right".
truth() { { ranked "${1:-one}"; stored "${2:-fused}" one coordinator; } >"$dir/expected"; }
# right NAME [VIEW COLUMN]: whether the shards have the rankings and rows of the one table.
on=(shard1 shard2 shard3)
right() {
    { ranked "gallery.${2:-photo}"; stored "${3:-fused}" photo "${on[@]}"; } >"$dir/found"
    same "$1"
}
truth
right "a gallery over shards"

# The search goes on in the same session, too, as soon as the shard is there.
by_drawing="FROM gallery.photo ORDER BY sketch_distance(fused, '$strokes')"
output=$(sql coordinator 2>&1 <<SQL
\\set ON_ERROR_STOP 0
\\set VERBOSITY default
BEGIN;
DECLARE c CURSOR FOR SELECT id $by_drawing;
FETCH 30 FROM c;
\\! tests/cluster.sh kill $dir/shard2
FETCH ALL FROM c;
ROLLBACK;
SELECT id $by_drawing LIMIT 10;
\\! tests/cluster.sh start $dir/shard2 >/dev/null 2>&1
SELECT 'again ' || id $by_drawing LIMIT 10;
SQL
)
expect "shard killed within a cursor" "ERROR: +($lost)" "$output"
expect "its statement" '^CONTEXT: +remote SQL command: FETCH 10 FROM' "$output"
expect "shard that is down" 'ERROR: +could not connect to server "shard2"' "$output"
check "rows of a search that failed: $output" "$(($(grep -c '^[0-9]*$' <<<"$output") != 30))"
expect "search in the same session" "^again $(sql coordinator -c "SELECT id FROM one ORDER BY sketch_distance(fused, '$strokes') LIMIT 1")\$" "$output"
check "rows after its return: $output" "$(($(grep -c '^again ' <<<"$output") != 10))"
right "after a kill within a cursor"

# Shards that are asked at the same time; one is killed while it answers.
branches=()
for ((i = 1; i <= members; i++)); do
    branches+=("(SELECT id, fused <-> sketch_embed('$strokes') AS distance FROM gallery.photo_$i ORDER BY 2 LIMIT 10)")
done
best="WITH best AS MATERIALIZED ($(printf '%s' "${branches[0]}"; printf ' UNION ALL %s' "${branches[@]:1}")) SELECT id FROM best ORDER BY distance LIMIT 10"
hold shard2 "LOCK TABLE photo"
begin coordinator "$best" shard2
crash shard2
expect "shard killed within a search" "^ERROR: +($lost)" "$output"
revive shard2
expect "search of all at once" "^$(sql coordinator -c "SELECT string_agg(id::text, ' ') FROM (SELECT id FROM one ORDER BY sketch_distance(fused, '$strokes') LIMIT 10) AS best")\$" \
    "$(sql coordinator -c "$best" | xargs)"

# Killed within an INSERT, when another shard has stored its rows but has not committed them.
hold shard2 "LOCK TABLE photo IN SHARE MODE"
begin coordinator "INSERT INTO gallery.photo (id, tenant, image, embedding) $(photos 100000 2000 300)" shard2
writing=$(for i in 1 3; do sql "shard$i" -c "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND backend_xid IS NOT NULL"; done | xargs)
expect "rows on other shards" '^1 1$' "$writing"
crash shard2
expect "shard killed within an INSERT" "^ERROR: +($lost)" "$output"
revive shard2
expect "nothing of the INSERT" '^0 0 0$' "$(found 100000)"
right "after a kill within an INSERT"
add gallery.photo 100000 2000 300
add one 100000 2000 300
all=$(found 100000)
expect "the INSERT again" '^300$' "$(xargs <<<"$all" | tr ' ' '\n' | awk '{ sum += $1 } END { print sum }')"
truth
right "after the INSERT"

# Killed before COMMIT. The shards commit one after another, so those before it keep their rows: an INSERT of several shards is not
# atomic. The order is always the same; the first in it is not another.
halves=0
for victim in 3 1; do
    first=$((200000 + 10000 * victim)) offset=$((2000 + 300 * victim))
    output=$(sql coordinator 2>&1 <<SQL || true
BEGIN;
INSERT INTO gallery.photo (id, tenant, image, embedding) $(photos "$first" "$offset" 300);
\\! tests/cluster.sh kill $dir/shard$victim
COMMIT;
SQL
)
    expect "shard $victim killed before COMMIT" "ERROR: +($lost)" "$output"
    revive "shard$victim"
    kept=($(found "$first"))
    expect "rows of the dead shard" '^0$' "${kept[victim - 1]}"
    # Whoever repeats the INSERT completes it.
    add gallery.photo "$first" "$offset" 300 "ON CONFLICT DO NOTHING"
    add one "$first" "$offset" 300
    complete=($(found "$first"))
    for ((i = 0; i < members; i++)); do
        check "shard $((i + 1)) has ${kept[i]} of ${complete[i]} rows" "$((kept[i] != 0 && kept[i] != complete[i]))"
        halves=$((halves + (kept[i] > 0)))
    done
    check "repeated INSERT: ${complete[*]}" "$((complete[0] + complete[1] + complete[2] != 300))"
done
check "docs/scaling.md calls an INSERT of several shards not atomic" "$((halves == 0))"
truth
right "after the repeated INSERTs"

# Killed while its trigger embeds photos. What was acknowledged before is there.
embed="INSERT INTO gallery.photo (id, image) SELECT n, decode('$photo', 'base64') FROM generate_series(%s) AS n
    WHERE satisfies_hash_partition('gallery.photo'::regclass, $members, 1, n) LIMIT %s"
sql coordinator -c "$(printf "$embed" "300001, 300100" 3)" -c "INSERT INTO one (id, image) SELECT id, image FROM gallery.photo WHERE id > 300000"
acknowledged=$(sql shard2 -c "SELECT count(*), md5(string_agg(embedding::text || fused::text, '' ORDER BY id)) FROM photo WHERE id > 300000")
size=$(sql shard2 -c "SELECT pg_total_relation_size('photo')")
sql coordinator -c "$(printf "$embed" "400001, 410000" 2000)" >"$dir/begun" 2>&1 &
begun=$! holder=$!
eventually shard2 "SELECT pg_total_relation_size('photo') > $size"
crash shard2
expect "shard killed while it embeds" "^ERROR: +($lost)" "$output"
revive shard2
expect "photos that were acknowledged" "^$acknowledged\$" \
    "$(sql shard2 -c "SELECT count(*), md5(string_agg(embedding::text || fused::text, '' ORDER BY id)) FROM photo WHERE id > 300000")"
check "photos of the one table: $acknowledged" "$([[ $acknowledged == "$(sql coordinator -c "SELECT count(*), md5(string_agg(embedding::text || fused::text, '' ORDER BY id)) FROM one WHERE id > 300000")" ]] && echo 0 || echo 1)"
truth
right "after a kill within the trigger"

# A change of codebook by a second column, as docs/scaling.md says.
sql coordinator -c "SELECT sketch_build_codebook('photo_2', 'one')" >/dev/null
# load_second NAME SERVER: the second codebook under a name there.
load_second() { sql coordinator -c "SELECT format('SELECT sketch_load_codebook(%L, %L)', '$1', sketch_export_codebook('photo_2'))" | sql "$2"; }
id_2=$(sql coordinator -c "SELECT sketch_current_codebook('photo_2')")
check "another codebook: $id_2" "$((id_2 == id))"
second="CREATE FUNCTION fuse_2() RETURNS trigger LANGUAGE plpgsql AS \$\$
BEGIN
    NEW.fused_2 := public.sketch_fuse(NEW.embedding, 'photo_2');
    RETURN NEW;
END \$\$;
CREATE TRIGGER sketch_trigger_2 BEFORE INSERT OR UPDATE OF image, embedding ON %s FOR EACH ROW EXECUTE FUNCTION fuse_2()"
fill="DO \$\$
DECLARE first bigint;
BEGIN
    FOR first IN SELECT generate_series(0, max(id), 500) FROM photo LOOP
        UPDATE photo SET fused_2 = sketch_fuse(embedding, 'photo_2') WHERE id >= first AND id < first + 500 AND fused_2 IS NULL;
        COMMIT;
    END LOOP;
END \$\$"
index="CREATE INDEX CONCURRENTLY photo_fused_2 ON photo USING ivfexact (fused_2)"
for ((i = 1; i <= members; i++)); do
    expect "second codebook of shard $i" "^$id_2\$" "$(load_second photo_2 "shard$i")"
    sql "shard$i" -c "ALTER TABLE photo ADD fused_2 embedding" -c "$(printf "$second" photo)"
done
sql coordinator -c "ALTER TABLE gallery.photo ADD fused_2 embedding" -c "ALTER TABLE one ADD fused_2 embedding" -c "$(printf "$second" one)" \
    -c "UPDATE one SET fused_2 = sketch_fuse(embedding, 'photo_2')" \
    -c "CREATE VIEW rotated AS SELECT id, tenant, fused_2 AS fused FROM one" \
    -c "CREATE VIEW gallery.rotated AS SELECT id, tenant, fused_2 AS fused FROM gallery.photo"
sql shard1 -c "$fill" -c "$index"
# Killed in the fourth batch: three are kept, and people search as before.
hold shard2 "SELECT FROM photo WHERE id = (SELECT max(id) FROM photo WHERE id < 2000) FOR UPDATE"
begin shard2 "$fill"
crash shard2
expect "shard killed within an UPDATE" "$lost" "$output"
revive shard2
expect "batches that are kept" '^t\|0$' \
    "$(sql shard2 -c "SELECT count(fused_2) FILTER (WHERE id < 1500) = count(*) FILTER (WHERE id < 1500), count(fused_2) FILTER (WHERE id >= 1500) FROM photo")"
right "after a kill within an UPDATE"
# Photos that come meanwhile are fused with both.
add one 500000 3300 300
add gallery.photo 500000 3300 300
sql shard2 -c "$fill"
truth
# Killed within the build of the index: it is left invalid.
hold shard2 "SELECT FROM sketch.model"
begin shard2 "$index"
crash shard2
expect "shard killed within CREATE INDEX" "$lost" "$output"
revive shard2
expect "index that is left" '^f$' "$(sql shard2 -c "SELECT indisvalid FROM pg_index WHERE indexrelid = 'photo_fused_2'::regclass")"
right "after a kill within CREATE INDEX"
sql shard2 -c "DROP INDEX photo_fused_2" -c "$index"
sql shard3 -c "$fill" -c "$index"
truth rotated fused_2
right "the second column" rotated fused_2
for ((i = 1; i <= members; i++)); do
    expect "column of shard $i" "^$id_2\\|0\$" "$(sql "shard$i" -c "SELECT sketch_codebook_id(fused_2), count(*) FILTER (WHERE fused_2 IS NULL) FROM photo GROUP BY 1")"
    expect "index of shard $i" '^t\|t$' "$(sql "shard$i" -c "SELECT indisvalid, rows >= visible FROM pg_index, sketch_check_index('photo_fused_2') WHERE indexrelid = 'photo_fused_2'::regclass")"
done
# While the second column is searched, the gallery's own follows. Killed in the middle, it has the old codebook in all rows.
for server in coordinator shard1 shard2 shard3; do load_second photo "$server" >/dev/null; done
sql coordinator -c "SELECT sketch_fuse_photos('one')" >/dev/null
hold shard2 "SELECT FROM photo WHERE ctid = (SELECT max(ctid) FROM photo) FOR UPDATE"
begin shard2 "SELECT sketch_fuse_photos('photo')"
crash shard2
expect "shard killed within sketch_fuse_photos" "$lost" "$output"
revive shard2
expect "codebook of its photos" "^$id\$" "$(sql shard2 -c "SELECT DISTINCT sketch_codebook_id(fused) FROM photo")"
right "the second column after a kill" rotated fused_2
for ((i = 1; i <= members; i++)); do sql "shard$i" -c "SELECT sketch_fuse_photos('photo')" >/dev/null; done
truth
right "the gallery's column again"
for ((i = 1; i <= members; i++)); do
    expect "columns of shard $i" '^0$' "$(sql "shard$i" -c "SELECT count(*) FROM photo WHERE fused::text IS DISTINCT FROM fused_2::text")"
done
sql coordinator -c "DROP VIEW rotated, gallery.rotated" -c "ALTER TABLE one DROP fused_2" -c "ALTER TABLE gallery.photo DROP fused_2" \
    -c "DROP FUNCTION fuse_2() CASCADE"
for ((i = 1; i <= members; i++)); do sql "shard$i" -c "DROP FUNCTION fuse_2() CASCADE" -c "ALTER TABLE photo DROP fused_2"; done
sql coordinator -c "$(printf "$embed" "600001, 600100" 1)" -c "INSERT INTO one (id, image) SELECT id, image FROM gallery.photo WHERE id > 600000"
expect "codebook of a new photo" "^$id_2\$" "$(sql coordinator -c "SELECT DISTINCT sketch_codebook_id(fused) FROM gallery.photo WHERE id > 600000")"
truth
right "the end of the change"
