#!/usr/bin/env bash
# The inference worker beside connections that each run the network: images per second, latency, and private memory.
#
# usage: [CONNECTIONS="1 8 64 200"] [SECONDS_EACH=10] [ROUNDS=3] tests/bench/serve.sh
#
# Each connection embeds a drawing that no cache knows and ranks 2,000 photos by it; every fourth statement embeds a photo. Both
# modes run in turns on the same server. A connection of its own may use one thread or one for each core: the better is taken.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
repository=$(realpath "$here/../..")
bindir=$("${PG_CONFIG:-pg_config}" --bindir)
connections=${CONNECTIONS:-1 8 64 200} seconds=${SECONDS_EACH:-10} rounds=${ROUNDS:-3}

dir=$(mktemp -d /var/tmp/pg_sketch-bench.XXXXXX)
trap '"$repository/tests/cluster.sh" remove "$dir"' EXIT
chmod 755 "$dir"
SETTINGS="shared_preload_libraries = 'pg_sketch'
max_connections = 250
${SETTINGS:-}" "$repository/tests/cluster.sh" start "$dir" >/dev/null
export PGHOST=$dir PGUSER=postgres PGDATABASE=postgres
sql() { "$bindir/psql" --no-psqlrc --quiet --tuples-only --no-align -v ON_ERROR_STOP=1 "$@"; }

sql <<SQL
CREATE EXTENSION pg_sketch;
SELECT sketch_load_model() \g /dev/null
CREATE TABLE photo (id int PRIMARY KEY, fused embedding);
INSERT INTO photo SELECT n, (format('[%s]@%s', (SELECT string_agg((sin(n * i) / 16)::text, ',') FROM generate_series(1, 512) AS i),
    lpad(to_hex(sketch_current_model()), 8, '0')))::embedding FROM generate_series(1, 2000) AS n;
CREATE TABLE image (bytes bytea);
\set jpeg \`base64 -w0 "$repository/model/tests/fixtures/photo.png"\`
INSERT INTO image VALUES (decode(:'jpeg', 'base64'));
-- White space and bytes past the end of a file: the same image, but not to a cache.
CREATE FUNCTION fresh(image bytea) RETURNS bytea LANGUAGE sql VOLATILE AS
    \$\$ SELECT image || convert_to(translate((random() * 1e9)::int::bit(31)::text || (random() * 1e9)::int::bit(31)::text, '01', E' \n'), 'UTF8') \$\$;
VACUUM ANALYZE photo;
SQL
cat >"$dir/query.sql" <<'SQL'
\set x random(1, 255)
\set y random(1, 255)
SELECT id FROM photo, (SELECT sketch_embed(fresh(convert_to('[[[:x,200,100,20],[30,:y,210,90]]]', 'UTF8'))) AS s OFFSET 0) AS q ORDER BY fused <-> s LIMIT 10;
SQL
echo 'SELECT photo_embed(fresh(bytes)) FROM image;' >"$dir/photo.sql"

# Kilobytes that belong to one process alone.
private() { awk '/^Private/ { sum += $2 } END { print sum + 0 }' "/proc/$1/smaps_rollup" 2>/dev/null || echo 0; }
backends() { sql -c "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name = 'pgbench'"; }
sum_private() { local sum=0 pid; for pid in $(backends); do sum=$((sum + $(private "$pid"))); done; echo "$sum"; }

# Only the second half of a run counts: in the first, connections load their networks.
run() { # mode threads clients: prints "tps p50 p95 backends_kb worker_kb"
    local worker=on seconds=$seconds
    [ "$3" -lt 64 ] || seconds=$((seconds * 3))
    [ "$1" = worker ] || worker=off
    rm -f "$dir"/log.*
    PGOPTIONS="-c pg_sketch.worker=$worker -c pg_sketch.threads=$2" "$bindir/pgbench" -n -M prepared -c "$3" -j 2 -T "$seconds" \
        -f "$dir/query.sql@3" -f "$dir/photo.sql@1" -l --log-prefix="$dir/log" >"$dir/out" 2>&1 &
    local bench=$!
    sleep "$((seconds * 3 / 4))"
    local memory worker_pid
    memory=$(sum_private)
    worker_pid=$(sql -c "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_sketch inference worker'")
    wait "$bench" || { cat "$dir/out" >&2; exit 1; }
    cat "$dir"/log.* | awk -v half="$((seconds / 2))" '
        { time[NR] = $5 + $6 / 1e6; latency[NR] = $3; if (time[NR] > last) last = time[NR] }
        END { for (i = 1; i <= NR; i++) if (time[i] > last - half) print latency[i] / 1000 }' | sort -n |
        awk -v half="$((seconds / 2))" -v memory="$memory" -v worker="$(private "$worker_pid")" '
        { latency[NR] = $1 }
        END { printf "%.1f %.1f %.1f %d %d\n", NR / half, latency[int((NR + 1) / 2)], latency[int(NR * 0.95) + (NR * 0.95 > int(NR * 0.95))], memory, worker }'
}

median() { sort -n | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
column() { awk -v c="$2" '{ print $c }' "$1" | median; }

# What a connection costs that embeds nothing, and what one with a network of its own costs.
echo 'SELECT count(*) FROM photo;' >"$dir/plain.sql"
"$bindir/pgbench" -n -M prepared -c 20 -T 3 -f "$dir/plain.sql" >/dev/null 2>&1 & bench=$!
sleep 2; plain=$(($(sum_private) / 20)); wait "$bench"
read -r _ _ _ one _ <<<"$(run connection 0 1)"
buffers=$(sql -c "SELECT pg_size_bytes(current_setting('shared_buffers')) / 1024")
echo "private memory: a connection that embeds nothing $((plain / 1024)) MB, one with its own network $((one / 1024)) MB; shared buffers $((buffers / 1024)) MB"

for clients in $connections; do
    modes="worker:0 connection:1"
    # Networks for all of 200 connections take the memory of a large machine; beyond 8, one thread each is the best there is.
    [ "$clients" -gt 8 ] || modes="$modes connection:0"
    rm -f "$dir"/result.*
    for _ in $(seq "$rounds"); do
        for mode in $modes; do
            run "${mode%:*}" "${mode#*:}" "$clients" >>"$dir/result.$mode"
        done
    done
    best=connection:1
    if [ -f "$dir/result.connection:0" ] && awk -v a="$(column "$dir/result.connection:0" 1)" -v b="$(column "$dir/result.connection:1" 1)" 'BEGIN { exit a <= b }'; then
        best=connection:0
    fi
    for mode in worker:0 $best; do
        file=$dir/result.$mode
        echo "$clients connections, ${mode%:*}: $(column "$file" 1) statements/s, p50 $(column "$file" 2) ms, p95 $(column "$file" 3) ms," \
            "private memory $(awk -v kb="$(column "$file" 4)" 'BEGIN { printf "%.0f", kb / 1024 }') MB of connections, $(awk -v kb="$(column "$file" 5)" 'BEGIN { printf "%.0f", kb / 1024 }') MB of the worker"
    done
    awk -v w="$(column "$dir/result.worker:0" 1)" -v c="$(column "$dir/result.$best" 1)" -v wm="$(column "$dir/result.worker:0" 4)" -v own="$(column "$dir/result.worker:0" 5)" \
        -v cm="$(column "$dir/result.$best" 4)" -v plain="$plain" -v n="$clients" -v one="$one" -v buffers="$buffers" 'BEGIN {
        printf "%d connections: ratio of statements/s %.2f (worker / best of connections), of private memory %.2f", n, w / c, (wm + own) / cm
        printf "; worker mode %.2f of one session plus shared buffers, %.2f of it without what connections cost that embed nothing\n",
            (wm + own) / (one + buffers), (wm + own - n * plain) / (one + buffers) }'
done
