#!/usr/bin/env bash
# A disk that is full in a build, in an insert, and of the WAL: each is an error, or a restart, after which everything still
# stands. Needs root, to mount a small tmpfs.
#   tests/disk_full.sh DIR   makes a cluster of its own, beside DIR
set -euo pipefail
cd "$(dirname "$0")/.."
bindir=$("$PG_CONFIG" --bindir)
dir=$1-full
export PGHOST=$dir/cluster PGUSER=postgres PGOPTIONS='--client-min-messages=error'
mkdir -p "$dir"
trap 'tests/cluster.sh remove "$dir/cluster"; umount "$dir/small" "$dir/wal" 2>/dev/null || true; rm -rf "$dir"' EXIT
sql() { "$bindir/psql" -X --quiet --set ON_ERROR_STOP=1 --set VERBOSITY=sqlstate --no-align --tuples-only --dbname postgres "$@"; }
fail() { echo "$*" >&2; exit 1; }
small() {
    mkdir -p "$dir/$1"
    mount -t tmpfs -o "size=$2" tmpfs "$dir/$1"
    chown postgres "$dir/$1"
    chmod 700 "$dir/$1"
}
# fill NAME BYTES: leaves so many bytes free. free NAME: gives all back.
fill() {
    local room
    room=$(df --output=avail -B1 "$dir/$1" | tail -1)
    head -c "$((room - $2))" /dev/zero >"$dir/$1/ballast"
}
free() { rm "$dir/$1/ballast"; }
# whole TABLE: its index is intact, and answers as a sequential scan.
answers() {
    sql -c "SET enable_seqscan = $1; SET enable_indexscan = $2;" -c "SELECT q, (SELECT string_agg(d::text, ' ') FROM
        (SELECT t.e <-> query.e AS d FROM $3 AS t ORDER BY t.e <-> query.e LIMIT 20) AS n) FROM query"
}
whole() {
    sql -c "SELECT sketch_check_index('$1_e')" >/dev/null || fail "$2: the index of $1 is not whole"
    diff <(answers on off "$1") <(answers off on "$1") >/dev/null || fail "$2: answers from $1 differ"
}
# refused STATEMENT: it ends in the error disk_full.
refused() {
    local said
    said=$(sql -c "$1" 2>&1) && fail "there was room for: $1"
    [[ $said == *53100* ]] || fail "expected disk_full, found: $said"
}

chmod 755 "$dir"
mkdir -p "$dir/cluster"
SETTINGS="autovacuum = off
maintenance_work_mem = 64MB
max_wal_size = 4MB
min_wal_size = 2MB" INITDB="--wal-segsize=1" tests/cluster.sh start "$dir/cluster" >/dev/null
small small 64M
sql -c "CREATE TABLESPACE small LOCATION '$dir/small'"
sql <<'SQL'
CREATE EXTENSION pg_sketch;
CREATE FUNCTION point(n bigint) RETURNS embedding LANGUAGE sql IMMUTABLE AS $$
    SELECT array_agg(sin(n % 50 * i * 1.7) + 0.2 * sin(n * i * 0.37) ORDER BY i)::real[]::embedding FROM generate_series(1, 64) AS i
$$;
CREATE TABLE photo (id bigserial PRIMARY KEY, e embedding);
INSERT INTO photo (e) SELECT point(n) FROM generate_series(1, 20000) AS n;
CREATE INDEX photo_e ON photo USING ivfexact (e) TABLESPACE small;
CREATE TABLE query AS SELECT q, point(q) AS e FROM generate_series(1, 300, 17) AS q;
SQL
size=$(sql -c "SELECT pg_relation_size('photo_e')")
whole photo "at the start"

# A build runs out of room at its start, in its middle and at its end; the index that was there still stands.
for left in 100000 $((size / 2)) $((size - 50000)); do
    fill small "$left"
    refused "CREATE INDEX again ON photo USING ivfexact (e) TABLESPACE small"
    refused "REINDEX INDEX photo_e"
    free small
    whole photo "after builds with $left bytes left"
done
sql -c "REINDEX INDEX photo_e"

# Inserts run out of room; those that were done stand, and those that come after it.
# The first rows of a list take new pages.
fill small 4000000
inserted=0
while sql -c "INSERT INTO photo (e) SELECT point((random() * 1e6)::bigint) FROM generate_series(1, 100)" 2>"$dir/said"; do
    inserted=$((inserted + 100))
done
[ "$inserted" -gt 0 ] || fail "there was no room for the first inserts"
grep -q 53100 "$dir/said" || fail "an insert: $(cat "$dir/said")"
whole photo "after $inserted inserts"
sql -c "DELETE FROM photo WHERE id % 3 = 0" -c "VACUUM photo"
whole photo "after a VACUUM on a full disk"
free small
sql -c "INSERT INTO photo (e) SELECT point((random() * 1e6)::bigint) FROM generate_series(1, 2000)"
whole photo "with room again"
[ "$(sql -c "SELECT count(*) > 14000 FROM photo")" = t ] || fail "rows are lost"

# The WAL has no room: the server stops, and stands again when there is.
small wal 80M
tests/cluster.sh stop "$dir/cluster"
cp -a "$dir/cluster/data/pg_wal/." "$dir/wal/"
rm -r "$dir/cluster/data/pg_wal"
ln -s "$dir/wal" "$dir/cluster/data/pg_wal"
tests/cluster.sh start "$dir/cluster" >/dev/null
# Each writes several times as much as there is room for.
build="CREATE INDEX ON photo USING ivfexact (e);"
for statement in "INSERT INTO photo (e) SELECT point(n) FROM generate_series(1, 30000) AS n" "$build $build $build $build $build"; do
    fill wal 1500000
    said=$(sql -c "$statement" 2>&1) && fail "the WAL had room for: $statement"
    free wal
    for _ in $(seq 300); do
        tests/cluster.sh start "$dir/cluster" >/dev/null 2>&1 && sql -c "SELECT" >/dev/null 2>&1 && break
        sleep 0.2
    done
    whole photo "after a full WAL: $statement"
done
grep -q "No space left on device" "$dir/cluster/server.log" || fail "the WAL was never full"
sql -c "REINDEX INDEX photo_e"
whole photo "at the end"
echo "a full disk in builds, in inserts after $inserted rows, and of the WAL: the index stands"
