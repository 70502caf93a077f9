#!/usr/bin/env bash
# Search over shards by postgres_fdw: latency of 1, 2, 4 and 8 shards of the same size, each a cluster of its own behind a network that
# delays every packet; and several shards beside one table of as many rows: latency, searches per second, bytes that cross.
#
# usage: [SIZE=250000] [SHARDS="1 2 4 8"] [ONE=4] [DELAYS="0 10"] [QUERIES=100] [DURATION=10] tests/bench/shards.sh
#
#   SIZE          rows of a shard; eight shards of 250,000 need 5 GB of disk, and the table of a million that stands beside them 2 GB
#   ONE           number of shards that one table of as many rows stands beside
#   DELAYS        milliseconds for a round trip between the coordinator and a shard; 0 is the socket itself
#   QUERIES       searches of which the median counts, one after the other
#   DURATION      seconds of searches by four clients
#   CACHE, DATA   as in photos.sh
#
# All servers share this machine's cores, which real shards do not.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
repository=$(realpath "$here/../..")
# shellcheck source=tests/bench/median.sh
. "$here/median.sh"
: "${PG_CONFIG:=pg_config}"
export PG_CONFIG PGUSER=postgres PGDATABASE=postgres PGOPTIONS='--client-min-messages=warning'
bindir=$("$PG_CONFIG" --bindir)
size=${SIZE:-250000} counts=${SHARDS:-1 2 4 8} one=${ONE:-4} delays=${DELAYS:-0 10} queries=${QUERIES:-100} duration=${DURATION:-10}
most=$(tr ' ' '\n' <<<"$counts" | sort -n | tail -n 1)

dir=$(mktemp -d "${TMPDIR:-/var/tmp}/pg_sketch-shards.XXXXXX")
chmod 755 "$dir"
proxies=()
clean_up() {
    [ ${#proxies[@]} = 0 ] || kill "${proxies[@]}" 2>/dev/null || true
    for cluster in "$dir"/*/data; do "$repository/tests/cluster.sh" remove "${cluster%/data}"; done
    rm -rf "$dir"
}
trap clean_up EXIT
note() { echo "$(date +%T) $*" >&2; }
on() { "$bindir/psql" -X --quiet --tuples-only --no-align --field-separator ' ' -v ON_ERROR_STOP=1 --host "$dir/$1" "${@:2}"; }
start() {
    url=$(SETTINGS="shared_buffers = $(($2 / 1000 * 2 + 64))MB
maintenance_work_mem = 1GB
max_parallel_workers_per_gather = 0
jit = off
autovacuum = off
wal_level = minimal
max_wal_senders = 0
max_connections = 50" "$repository/tests/cluster.sh" start "$dir/$1")
}

start coordinator $((size * one))
sql() { on coordinator --dbname "$1" "${@:2}"; }
# shellcheck source=tests/bench/photos.sh
. "$here/photos.sh"
on coordinator -c 'CREATE EXTENSION pg_sketch' -c 'CREATE EXTENSION postgres_fdw' -c 'CREATE TABLE query (id int PRIMARY KEY, fused embedding)' \
    -c 'CREATE TEMP TABLE sketch (number serial, fused embedding)' -c 'COPY sketch (fused) FROM STDIN BINARY' \
    -c 'INSERT INTO query SELECT row_number() OVER (ORDER BY hashint4(number), number), fused FROM sketch' -c 'VACUUM ANALYZE query' \
    <"$cache/sketch.copy"

# fill SERVER COUNT SEED: the table "photo" of a server, with its index.
fill() {
    note "$1: $2 rows"
    on "$1" -c 'CREATE EXTENSION IF NOT EXISTS pg_sketch' -c 'CREATE TABLE photo (id bigint, fused embedding)'
    for seed in "${@:3}"; do make_set photos "$2" "$seed" | on "$1" -c 'COPY photo FROM STDIN BINARY'; done
    on "$1" -c 'CREATE INDEX ON photo USING ivfexact (fused)' -c 'VACUUM (FREEZE, ANALYZE) photo'
}
for ((i = 1; i <= most; i++)); do
    start "shard$i" "$size"
    fill "shard$i" "$size" "$i"
    for delay in $delays; do
        host=$dir/shard$i
        if [ "$delay" != 0 ]; then
            host=$dir/network$delay-$i
            mkdir "$host"
            half=$(awk "BEGIN { print $delay / 2 }")
            python3 "$here/delay.py" "$host/.s.PGSQL.5432" "$dir/shard$i/.s.PGSQL.5432" "$half" "$dir/bytes" &
            proxies+=($!)
            for ((wait = 0; wait < 200; wait++)); do [ ! -S "$host/.s.PGSQL.5432" ] || break; sleep 0.05; done
            chmod 777 "$host/.s.PGSQL.5432"
        fi
        on coordinator -c "CREATE SERVER shard${i}_$delay FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', dbname 'postgres',
                extensions 'pg_sketch', fetch_size '10', parallel_commit 'true', options '-c cursor_tuple_fraction=0.0005')" \
            -c "CREATE USER MAPPING FOR postgres SERVER shard${i}_$delay OPTIONS (user 'postgres')"
    done
done
# One table of the same rows as the shards together.
mapfile -t seeds < <(seq "$one")
fill coordinator "$size" "${seeds[@]}"

# What is asked: one table; the shards one after the other, by postgres_fdw; or all at the same time, by the function of
# docs/scaling.md.
vector='(SELECT fused FROM query WHERE id = :query)'
statement() { # whole | merge | together, COUNT, DELAY
    case $1 in
    whole) echo "SELECT id, fused <-> $vector AS distance FROM photo ORDER BY distance LIMIT 10;" ;;
    merge) echo "SELECT id, fused <-> $vector AS distance FROM on_$2_$3 ORDER BY distance LIMIT 10;" ;;
    together)
        echo "SELECT id, distance FROM nearest_photos('{$(seq -s, -f "shard%g_$3" "$2")}', $vector, 10) ORDER BY distance LIMIT 10;"
        ;;
    esac
}
on coordinator -c 'CREATE EXTENSION dblink' -c "$(sed -n '/^    CREATE FUNCTION nearest_photos/,/^    END \$\$;/p' "$repository/docs/scaling.md")"
for count in $counts; do
    for delay in $delays; do
        on coordinator -c "CREATE TABLE on_${count}_$delay (id bigint, fused embedding)"
        for ((i = 1; i <= count; i++)); do
            on coordinator -c "CREATE FOREIGN TABLE on_${count}_${delay}_$i () INHERITS (on_${count}_$delay)
                SERVER shard${i}_$delay OPTIONS (table_name 'photo')"
        done
    done
done

# milliseconds KIND COUNT DELAY: the median of the searches of one client, without its first.
milliseconds() {
    { echo '\timing on'; for ((query = 1; query <= queries + 1; query++)); do echo "\\set query $query"; statement "$@"; done; } >"$dir/script"
    on coordinator -f "$dir/script" | sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p' | tail -n "$queries" | median
}
# per_second KIND COUNT DELAY: searches of four clients.
per_second() {
    { echo "\\set query random(1, 1000)"; statement "$@" | tr '\n' ' '; } >"$dir/script"
    "$bindir/pgbench" --no-vacuum --client 4 --jobs 2 --time "$duration" --file "$dir/script" --host "$dir/coordinator" 2>/dev/null |
        sed -n 's/^tps = \([0-9.]*\).*/\1/p'
}
distances() { for ((query = 1; query <= 20; query++)); do statement "$@" | on coordinator -v query=$query -f - | cut -d' ' -f2; done; }

# Whether the shards answer as the one table does.
distances whole >"$dir/expected"
for kind in merge together; do
    distances $kind "$one" "${delays%% *}" | cmp -s - "$dir/expected" || { echo "$0: $one shards, $kind: other distances than one table" >&2; exit 1; }
done

# At most ten rows come from a shard with each FETCH.
rows=$(statement merge "$one" "${delays%% *}" | { echo 'EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF)'; cat; } | on coordinator -v query=7 -f - |
    awk '/Foreign Scan/ && match($0, /rows=[0-9]+/) { sum += 10 * int((substr($0, RSTART + 5, RLENGTH - 5) + 9) / 10) } END { print sum }')
echo "rows that cross for a search over $one shards: one after the other $rows, together $((10 * one))"

echo "search of the nearest 10 over shards of $size rows, one client, p50 in ms"
for delay in $delays; do
    first=
    for count in $counts; do
        merge=$(milliseconds merge "$count" "$delay")
        together=$(milliseconds together "$count" "$delay")
        first=${first:-$together}
        awk -v count="$count" -v delay="$delay" -v merge="$merge" -v together="$together" -v first="$first" 'BEGIN {
            printf "%d shards, round trip %s ms: one after the other %.1f, together %.1f: %.2f times that of the fewest shards\n",
                count, delay, merge, together, together / first }'
    done
done

echo "$one shards of $size rows beside one table of $((one * size))"
whole=$(milliseconds whole) rate=$(per_second whole)
printf 'one table: p50 %.1f ms, %.0f searches/s of 4 clients\n' "$whole" "$rate"
for delay in $delays; do
    for kind in merge together; do
        awk -v kind=$kind -v delay="$delay" -v p50="$(milliseconds $kind "$one" "$delay")" -v tps="$(per_second $kind "$one" "$delay")" \
            -v whole="$whole" -v rate="$rate" 'BEGIN {
            printf "shards, %s, round trip %s ms: p50 %.1f ms (ratio %.2f), %.0f searches/s (ratio %.2f)\n",
                kind == "merge" ? "one after the other" : "together", delay, p50, p50 / whole, tps, tps / rate }'
    done
done
for delay in $delays; do
    [ "$delay" != 0 ] || continue
    for kind in merge together; do
        # The proxies see the ends of connections a little later.
        sleep 2
        rm -f "$dir/bytes"
        milliseconds $kind "$one" "$delay" >/dev/null
        for ((wait = 0; wait < 100; wait++)); do [ "$(cat "$dir/bytes" 2>/dev/null | wc -l)" -lt "$one" ] || break; sleep 0.05; done
        awk -v kind=$kind -v n=$((queries + 1)) '{ there += $1; back += $2 } END {
            printf "%s: %.0f bytes to the shards for a search, %.0f back\n",
                kind == "merge" ? "one after the other" : "together", there / n, back / n }' "$dir/bytes"
    done
    break
done
