#!/usr/bin/env bash
# Times an exact scan, ORDER BY fused <-> q LIMIT 10, beside pgvector's halfvec on one server, and prints the ratio.
#
# usage: [N=1000000] [RUNS=7] [QUERIES=5] tests/bench/scan.sh PG_CONFIG
#
# The installation of PG_CONFIG must have pg_sketch and pgvector. Makes a cluster in a temporary folder and removes it
# afterwards. One million rows need 5 GB of memory and 3 GB of disk.
set -euo pipefail

pg_config=${1:?usage: [N=1000000] [RUNS=7] [QUERIES=5] $0 PG_CONFIG}
n=${N:-1000000} runs=${RUNS:-7} queries=${QUERIES:-5}
bin=$("$pg_config" --bindir)
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/bench/median.sh
. "$here/median.sh"

cargo build --quiet --release -p sketch-model --example gallery --manifest-path "$here/../../Cargo.toml"
target=$(cargo metadata --format-version 1 --no-deps --manifest-path "$here/../../Cargo.toml" |
    sed 's/.*"target_directory":"\([^"]*\)".*/\1/')

folder=$(mktemp -d "${TMPDIR:-/tmp}/pg_sketch_scan.XXXXXX")
if [ "$(id -u)" = 0 ]; then
    # Servers do not run as root.
    chown postgres: "$folder"
    as_postgres() { (cd "$folder" && exec runuser -u postgres -- env -u RUST_BACKTRACE "$@"); }
else
    as_postgres() { (cd "$folder" && exec env -u RUST_BACKTRACE "$@"); }
fi
clean_up() {
    as_postgres "$bin/pg_ctl" stop --silent --mode immediate --pgdata "$folder/data" >/dev/null 2>&1 || true
    rm -rf "$folder"
}
trap clean_up EXIT
sql() {
    as_postgres "$bin/psql" --no-psqlrc --quiet --tuples-only --no-align --field-separator ' ' \
        --variable ON_ERROR_STOP=1 --host "$folder" postgres "$@"
}

# Scans do not keep a table in the buffers if it is larger than a quarter of them. A page holds 7 rows.
buffers_mb=$((n / 7 * 8 / 1024 * 5 + 256))
as_postgres "$bin/initdb" --auth trust --no-sync --encoding UTF8 --locale C --pgdata "$folder/data" >"$folder/log"
cat >>"$folder/data/postgresql.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '$folder'
shared_buffers = ${buffers_mb}MB
max_parallel_workers_per_gather = 0
jit = off
synchronize_seqscans = off
autovacuum = off
fsync = off
wal_level = minimal
max_wal_senders = 0
max_wal_size = 8GB
CONF
as_postgres "$bin/pg_ctl" start --silent --wait --pgdata "$folder/data" --log "$folder/data/log" >/dev/null || {
    cat "$folder/data/log" >&2
    exit 1
}

echo "loading $n embeddings of 512 dimensions into both tables" >&2
sql <<'SQL'
CREATE EXTENSION pg_sketch;
CREATE EXTENSION vector;
CREATE TABLE bench_sketch (id bigint, fused embedding);
CREATE TABLE bench_vector (id bigint, fused halfvec(512));
CREATE TABLE bench_query (id bigint, fused embedding);
SQL
"$target/release/examples/gallery" clustered "$n" 1 | sql -c 'COPY bench_sketch FROM STDIN BINARY'
"$target/release/examples/gallery" clustered "$queries" 2 | sql -c 'COPY bench_query FROM STDIN BINARY'
sql <<'SQL'
INSERT INTO bench_vector SELECT id, fused::real[]::halfvec FROM bench_sketch;
VACUUM (FREEZE, ANALYZE) bench_sketch, bench_vector;
SQL
sql -c "SELECT version();
    SELECT extname, extversion FROM pg_extension WHERE extname IN ('pg_sketch', 'vector');
    SELECT relname, pg_size_pretty(pg_table_size(oid)) FROM pg_class WHERE relname IN ('bench_sketch', 'bench_vector')"

# One session. Each query has a warm-up on both tables, then its runs alternate between them.
script() {
    local query run table
    for query in $(seq "$queries"); do
        echo "SELECT fused::text AS bench_sketch, fused::real[]::halfvec::text AS bench_vector
            FROM bench_query WHERE id = $query \\gset"
        for run in $(seq 0 "$runs"); do
            for table in bench_sketch bench_vector; do
                echo "\\timing on"
                echo "SELECT '$query $run $table', array_agg(id) FROM
                    (SELECT id FROM $table ORDER BY fused <-> :'$table' LIMIT 10) AS nearest;"
                echo "\\timing off"
            done
        done
    done
}
script >"$folder/script.sql"
sql <"$folder/script.sql" >"$folder/times"

# Lines come in pairs: "query run table {ids}" and "Time: 123.456 ms". The first run of each query is a warm-up.
awk -v folder="$folder" '
    /^Time:/ { if (run > 0) print $2 >(folder "/" table); next }
    NF == 4 { query = $1; run = $2; table = $3; ids[query, table] = $4; queries[query] }
    END {
        for (query in queries) {
            if (ids[query, "bench_sketch"] == ids[query, "bench_vector"]) continue
            print "query " query ": other ids: " ids[query, "bench_sketch"] " and " ids[query, "bench_vector"]
            differ = 1
        }
        exit differ
    }
' "$folder/times"
least() { sort -g "$1" | head -n 1; }
sketch=$(median <"$folder/bench_sketch") vector=$(median <"$folder/bench_vector")
printf 'pg_sketch embedding: median %.1f ms, least %.1f ms\n' "$sketch" "$(least "$folder/bench_sketch")"
printf 'pgvector halfvec: median %.1f ms, least %.1f ms\n' "$vector" "$(least "$folder/bench_vector")"
awk -v sketch="$sketch" -v vector="$vector" \
    'BEGIN { printf "ratio %.3f (time of pg_sketch / time of pgvector; below 1 is faster)\n", sketch / vector }'
