# Replicas of a gallery: a subscriber of logical replication, and a physical standby of a shard, which takes over. Part of
# tests/shards.sh, after tests/shards_failure.sh, whose gallery over three shards it uses.

# rows SERVER TABLE: all its rows, to the last bit.
rows() { sql "$1" -c "COPY (SELECT * FROM $2 ORDER BY id) TO STDOUT (FORMAT binary)"; }
synced() {
    eventually shard5 "SELECT count(*) = 1 AND bool_and(srsubstate = 'r')
        FROM pg_subscription_rel JOIN pg_subscription AS s ON s.oid = srsubid WHERE subname = '$1'"
}
# caught_up SUBSCRIPTION: waits until shard 5 has applied what shard 4 has committed.
caught_up() {
    local lsn
    lsn=$(sql shard4 -c "SELECT pg_current_wal_lsn()")
    eventually shard4 "SELECT count(*) = 1 FROM pg_stat_replication WHERE application_name = '$1' AND replay_lsn >= '$lsn'"
}
# replicated NAME: whether the subscriber has the publisher's rows and rankings.
replicated() {
    caught_up gallery
    rows shard4 gallery >"$dir/expected"
    rows shard5 gallery >"$dir/found"
    same "rows $1"
    ranked gallery shard4 >"$dir/expected"
    ranked gallery shard5 >"$dir/found"
    same "rankings $1"
}

# The publisher embeds and fuses. The subscriber is a gallery, too, but its codebook is not loaded: if its trigger fired, it would
# replace what is fused.
columns="id int PRIMARY KEY, tenant int, image bytea"
other=$(base64 -w0 model/tests/fixtures/photo_grey.jpg)
sql shard4 -c "CREATE TABLE gallery ($columns)" -c "SELECT sketch_enable('gallery', 'image', codebook => 'photo')" \
    -c "CREATE TABLE spare (n int, embedding embedding)" >/dev/null
sql coordinator -c "COPY (SELECT id, tenant, '\\x00'::bytea, embedding FROM whole WHERE id <= 3500) TO STDOUT" |
    sql shard4 -c "COPY gallery (id, tenant, image, embedding) FROM STDIN"
sql coordinator -c "COPY (SELECT row_number() OVER (ORDER BY id), embedding FROM whole WHERE id > 3500) TO STDOUT" | sql shard4 -c "COPY spare FROM STDIN"
sql shard4 -c "INSERT INTO gallery VALUES (9001, 7, decode('$photo', 'base64'))" -c "CREATE INDEX ON gallery USING ivfexact (fused)" \
    -c "CREATE PUBLICATION gallery FOR TABLE gallery"
embedded=$(sql shard4 -c "SELECT embedding, fused FROM gallery WHERE id = 9001")
sql shard5 -c "CREATE TABLE gallery ($columns)" -c "SELECT sketch_enable('gallery', 'image', codebook => 'elsewhere', embed => false)" \
    -c "CREATE SUBSCRIPTION gallery CONNECTION 'host=$dir/shard4 dbname=postgres user=postgres' PUBLICATION gallery" >/dev/null
synced gallery
sql shard5 -c "CREATE INDEX gallery_fused ON gallery USING ivfexact (fused)" -c "VACUUM ANALYZE gallery"
replicated "of the first copy"
check "rankings of a subscriber: $(wc -l <"$dir/found")" "$(($(wc -l <"$dir/found") < 1000))"
# change K: embeddings that are taken from "spare", cleared and left alone, in rows that are changed, deleted and new.
change() {
    sql shard4 -c "UPDATE gallery SET tenant = 7 WHERE id % 31 = $1" \
        -c "UPDATE gallery AS g SET embedding = s.embedding FROM spare AS s WHERE g.id % 29 = $1 AND s.n = 400 * $1 + g.id / 29 + 1" \
        -c "UPDATE gallery SET embedding = NULL WHERE id % 37 = $1" -c "DELETE FROM gallery WHERE id % 23 = $1" \
        -c "INSERT INTO gallery (id, tenant, image, embedding) SELECT 20000 + n, 7, '\\x00', embedding FROM spare WHERE n > 400 * $1 + 200 AND n <= 400 * $1 + 400"
}
change 0
sql shard4 -c "UPDATE gallery SET image = decode('$other', 'base64') WHERE id = 9001" -c "INSERT INTO gallery VALUES (9002, 7, decode('$photo', 'base64'))"
replicated "after changes"
expect "a new photo of the old id" "^t$" "$(sql shard5 -c "SELECT embedding::text <> '${embedded%%|*}' FROM gallery WHERE id = 9001")"
sql shard5 -c "ALTER SUBSCRIPTION gallery SET (binary = true)"
change 1
replicated "after changes in binary form"
expect "codebook of the subscriber" "^$id\$" "$(sql shard5 -c "SELECT string_agg(DISTINCT sketch_codebook_id(fused)::text, ' ') FROM gallery")"
expect "index of the subscriber" '^t$' "$(sql shard5 -c "SELECT visible = (SELECT count(fused) FROM gallery) FROM sketch_check_index('gallery_fused')")"
# A change of codebook on the publisher arrives whole; the subscriber need not know the codebook.
sql shard4 -c "SELECT sketch_build_codebook('photo', 'gallery')" -c "SELECT sketch_fuse_photos('gallery')" >/dev/null
replicated "after a change of codebook"
expect "codebook that it does not know" "^0\\|$(sql shard4 -c "SELECT sketch_current_codebook('photo')")\$" \
    "$(sql shard5 -c "SELECT (SELECT count(*) FROM sketch.codebook WHERE codebook_id = sketch_codebook_id(fused)), sketch_codebook_id(fused) FROM gallery WHERE id = 9001")"

# ENABLE ALWAYS has the subscriber's trigger fire: it keeps the embedding, and fuses by itself.
sql shard5 -c "ALTER TABLE gallery ENABLE ALWAYS TRIGGER sketch_trigger"
sql shard4 -c "INSERT INTO gallery VALUES (9003, 7, decode('$photo', 'base64'))"
caught_up gallery
expect "trigger that fires always" "^t\\|0$" \
    "$(sql shard5 -c "SELECT embedding::text = '${embedded%%|*}', COALESCE(sketch_codebook_id(fused), 0) FROM gallery WHERE id = 9003")"
sql shard5 -c "ALTER TABLE gallery ENABLE TRIGGER sketch_trigger"
sql shard4 -c "DELETE FROM gallery WHERE id = 9003"

# A publisher without pg_sketch: the subscriber's trigger embeds, in the first copy and after it.
sql shard4 -c "CREATE TABLE raw ($columns)" -c "INSERT INTO raw VALUES (1, 1, decode('$photo', 'base64')), (2, 1, decode('$other', 'base64'))" \
    -c "CREATE PUBLICATION raw FOR TABLE raw"
sql shard5 -c "CREATE TABLE raw ($columns)" -c "SELECT sketch_enable('raw', 'image', codebook => 'photo')" \
    -c "ALTER TABLE raw ENABLE ALWAYS TRIGGER sketch_trigger" \
    -c "CREATE SUBSCRIPTION raw CONNECTION 'host=$dir/shard4 dbname=postgres user=postgres' PUBLICATION raw" >/dev/null
synced raw
sql shard4 -c "INSERT INTO raw VALUES (3, 1, decode('$photo', 'base64')), (4, 1, decode('$photo', 'base64'))" \
    -c "UPDATE raw SET image = decode('$other', 'base64') WHERE id = 1" -c "UPDATE raw SET tenant = 2 WHERE id = 2" -c "DELETE FROM raw WHERE id = 4"
caught_up raw
expect "photos that the subscriber embeds" '^1\|1\|t 2\|2\|t 3\|1\|t$' "$(sql shard5 -c "SELECT id, tenant,
    embedding::text = photo_embed(image)::text AND fused::text = sketch_fuse(photo_embed(image), 'photo')::text FROM raw ORDER BY id" | xargs)"
check "photos that differ" "$(($(sql shard5 -c "SELECT count(DISTINCT embedding::text) FROM raw") != 2))"

# The subscriber takes over: with the codebook, a new photo is the one that the publisher would have made.
caught_up gallery
ranked gallery shard4 >"$dir/expected"
taken=$(sql shard4 -c "SELECT embedding, fused FROM gallery WHERE id = 9002")
sql shard4 -c "SELECT format('SELECT sketch_load_codebook(%L, %L)', 'elsewhere', sketch_export_codebook('photo'))" >"$dir/codebook"
tests/cluster.sh kill "$dir/shard4"
for subscription in gallery raw; do
    sql shard5 -c "ALTER SUBSCRIPTION $subscription DISABLE" -c "ALTER SUBSCRIPTION $subscription SET (slot_name = NONE)" -c "DROP SUBSCRIPTION $subscription"
done
ranked gallery shard5 >"$dir/found"
same "a subscriber that takes over"
sql shard5 <"$dir/codebook" >/dev/null
sql shard5 -c "INSERT INTO gallery VALUES (9004, 7, decode('$photo', 'base64'))"
check "a photo of the subscriber" "$([ "$taken" = "$(sql shard5 -c "SELECT embedding, fused FROM gallery WHERE id = 9004")" ] && echo 0 || echo 1)"

# follow PRIMARY STANDBY: a physical standby, which the primary waits for.
follow() {
    local backup=("$bindir/pg_basebackup" --host="$dir/$1" --pgdata="$dir/$2/data" --write-recovery-conf --checkpoint=fast --no-sync)
    mkdir "$dir/$2"
    if [ "$(id -u)" = 0 ]; then
        chown postgres "$dir/$2"
        (cd / && runuser -u postgres -- "${backup[@]}")
    else
        "${backup[@]}"
    fi
    sed -i "s|$dir/$1|$dir/$2|" "$dir/$2/data/postgresql.conf"
    start "$2"
}
follow shard2 standby2
sql shard2 -c "ALTER SYSTEM SET synchronous_standby_names = '*'" -c "ALTER SYSTEM SET synchronous_commit = remote_apply" -c "SELECT pg_reload_conf()" >/dev/null
eventually shard2 "SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'"
sql coordinator -c "ALTER SERVER shard2 OPTIONS (SET host '$dir/shard2,$dir/standby2')"
add one 700000 3600 100
add gallery.photo 700000 3600 100
ranked photo shard2 >"$dir/expected"
ranked photo standby2 >"$dir/found"
same "a standby"
vector=$(sql standby2 -c "SELECT fused FROM photo WHERE fused IS NOT NULL LIMIT 1")
expect "index of the standby" 'Index Scan' "$(sql standby2 -c "EXPLAIN (COSTS OFF) SELECT id FROM photo ORDER BY fused <-> '$vector' LIMIT 10")"
# In one session: the search before and after the kill.
output=$(sql coordinator 2>&1 <<SQL
\\set ON_ERROR_STOP 0
SELECT id $by_drawing LIMIT 10;
\\! tests/cluster.sh kill $dir/shard2
SELECT 'again ' || id $by_drawing LIMIT 10;
INSERT INTO gallery.photo (id, tenant, image, embedding) $(photos 800000 3700 100);
SQL
)
check "search by the standby: $output" "$([ "$(grep -c '^again ' <<<"$output")" = 10 ] && [ "$(sed -n 's/^again //p' <<<"$output" | sort)" = "$(grep '^[0-9]*$' <<<"$output" | sort)" ] && echo 0 || echo 1)"
expect "INSERT by the standby" 'ERROR: +cannot execute INSERT in a read-only transaction' "$output"
expect "nothing of that INSERT" '^0 0$' "$(for i in 1 3; do sql "shard$i" -c "SELECT count(*) FROM photo WHERE id > 800000"; done | xargs)"
on=(shard1 standby2 shard3)
truth
right "a standby in the shard's place"
# Promoted, it has what was acknowledged, takes new photos, and fuses them with the gallery's codebook.
sql standby2 -c "SELECT pg_promote()" >/dev/null
eventually standby2 "SELECT NOT pg_is_in_recovery()"
add one 800000 3700 100
add gallery.photo 800000 3700 100
sql coordinator -c "INSERT INTO gallery.photo_2 (id, image) SELECT n, decode('$photo', 'base64') FROM generate_series(900001, 900100) AS n
    WHERE satisfies_hash_partition('gallery.photo'::regclass, $members, 1, n) LIMIT 1" \
    -c "INSERT INTO one (id, image) SELECT id, image FROM gallery.photo WHERE id > 900000"
expect "codebook of the promoted" "^$id_2\$" "$(sql standby2 -c "SELECT sketch_codebook_id(fused) FROM photo WHERE id > 900000")"
truth
right "a promoted standby"
# The old shard comes back as a standby of the new one. It is the first host of the server; target_session_attrs finds the other.
rm -rf "${dir:?}/shard2"
follow standby2 shard2
eventually shard2 "SELECT pg_last_wal_replay_lsn() >= '$(sql standby2 -c "SELECT pg_current_wal_lsn()")'"
expect "INSERT by the first host" 'ERROR: +cannot execute INSERT in a read-only transaction' "$(add gallery.photo 1000000 3800 100 2>&1 || true)"
on=(shard1 shard2 shard3)
right "the first host is a standby"
sql coordinator -c "ALTER SERVER shard2 OPTIONS (ADD target_session_attrs 'read-write')"
add gallery.photo 1000000 3800 100
add one 1000000 3800 100
on=(shard1 standby2 shard3)
truth
right "the host that takes writes"
# Without that host there is none, although the standby is there.
tests/cluster.sh kill "$dir/standby2"
expect "no host that takes writes" 'could not connect to server "shard2"' "$(sql coordinator -c "SELECT id $by_drawing LIMIT 10" 2>&1 || true)"
sql coordinator -c "ALTER SERVER shard2 OPTIONS (DROP target_session_attrs)"
check "a standby that may be searched" "$(($(sql coordinator -c "SELECT id $by_drawing LIMIT 10" | wc -l) != 10))"
