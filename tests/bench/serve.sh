#!/usr/bin/env bash
# The inference worker beside connections that each run their own network: throughput, latency and private memory.
#
# usage: [DATA=../shared/data] [CONNECTIONS="1 8 64 200"] [SECONDS_EACH=10] [ROUNDS=3] [MODEL=file.onnx] tests/bench/serve.sh
#
# Each connection embeds a drawing that no cache contains and ranks 2,000 photos by it; every fourth statement embeds a photo
# instead. Both modes alternate on the same server. A connection with its own network uses one thread or one per core, whichever
# is faster. Then one connection embeds 400 photos, by sketch_embed_photos and row by row. MODEL names a network in place of the
# one that ships, with its manifest beside it.
#
# Other work on the machine slows few processes down more than many. Statements per second of the server's CPU time do not depend
# on it; multiplied by the number of cores, they are what an idle machine would reach.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/bench/median.sh
. "$here/median.sh"
repository=$(realpath "$here/../..")
bindir=$("${PG_CONFIG:-pg_config}" --bindir)
connections=${CONNECTIONS-1 8 64 200} seconds=${SECONDS_EACH:-10} rounds=${ROUNDS:-3}
photos=${DATA:-$repository/../shared/data}/sketchy-mini/photo

dir=$(mktemp -d /var/tmp/pg_sketch-bench.XXXXXX)
trap '"$repository/tests/cluster.sh" remove "$dir"' EXIT
chmod 755 "$dir"
SETTINGS="shared_preload_libraries = 'pg_sketch'
max_connections = 250
${SETTINGS:-}" "$repository/tests/cluster.sh" start "$dir" >/dev/null
export PGHOST=$dir PGUSER=postgres PGDATABASE=postgres
sql() { "$bindir/psql" --no-psqlrc --quiet --tuples-only --no-align -v ON_ERROR_STOP=1 "$@"; }

load='sketch_load_model()'
if [ -n "${MODEL:-}" ]; then
    cp "$MODEL" "$dir/given.onnx" && cp "${MODEL%.onnx}.json" "$dir/given.json" && chmod a+r "$dir"/given.*
    load="sketch_load_model('given', pg_read_binary_file('$dir/given.onnx'), pg_read_file('$dir/given.json')::jsonb)"
fi
sql <<SQL
CREATE EXTENSION pg_sketch;
SELECT $load \g /dev/null
CREATE TABLE photo (id int PRIMARY KEY, fused embedding);
INSERT INTO photo SELECT n, (format('[%s]@%s', (SELECT string_agg((sin(n * i) / 16)::text, ',') FROM generate_series(1, 512) AS i),
    lpad(to_hex(sketch_current_model()), 8, '0')))::embedding FROM generate_series(1, 2000) AS n;
CREATE TABLE image (bytes bytea);
\set jpeg \`base64 -w0 "$repository/model/tests/fixtures/photo.png"\`
INSERT INTO image VALUES (decode(:'jpeg', 'base64'));
-- Trailing white space: the same image, but no cache contains it.
CREATE FUNCTION fresh(image bytea) RETURNS bytea LANGUAGE sql VOLATILE AS
    \$\$ SELECT image || convert_to(translate((random() * 1e9)::int::bit(31)::text || (random() * 1e9)::int::bit(31)::text, '01', E' \n'), 'UTF8') \$\$;
VACUUM ANALYZE photo, image; -- without statistics, a table of one row would be expensive enough for jit
SQL
cat >"$dir/query.sql" <<'SQL'
\set x random(1, 255)
\set y random(1, 255)
SELECT id FROM photo, (SELECT sketch_embed(fresh(convert_to('[[[:x,200,100,20],[30,:y,210,90]]]', 'UTF8'))) AS s OFFSET 0) AS q ORDER BY fused <-> s LIMIT 10;
SQL
echo 'SELECT photo_embed(fresh(bytes)) FROM image;' >"$dir/photo.sql"

# Private kilobytes of a process, without shared mappings, even if only this process has touched them so far.
private() {
    awk '$2 ~ /^[-r][-w][-x][ps]$/ { own = $2 ~ /p$/ } own && /^Private/ { sum += $2 } END { print sum + 0 }' "/proc/$1/smaps" 2>/dev/null || echo 0
}
backends() { sql -c "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name = 'pgbench'"; }
sum_private() { local sum=0 pid; for pid in $(backends); do sum=$((sum + $(private "$pid"))); done; echo "$sum"; }

# Seconds of CPU time that the server's processes have used.
cpu() {
    local pids
    pids=$(pgrep -P "$(head -n 1 "$dir/data/postmaster.pid")" | sed 's|.*|/proc/&/stat|')
    # shellcheck disable=SC2086
    cat $pids 2>/dev/null | awk -v tick="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); sum += $12 + $13 } END { print sum / tick }'
}

# Only the second half of a run counts; the first is a warm-up in which connections load their networks.
run() { # mode threads clients: prints "statements/s p50 p95 backends_kb worker_kb statements/cpu_s"
    local worker=on seconds=$seconds
    [ "$3" -lt 64 ] || seconds=$((seconds * 3))
    [ "$1" = worker ] || worker=off
    rm -f "$dir"/log.*
    PGOPTIONS="-c pg_sketch.worker=$worker -c pg_sketch.threads=$2" "$bindir/pgbench" -n -M simple -c "$3" -j 2 -T "$seconds" \
        -f "$dir/query.sql@3" -f "$dir/photo.sql@1" -l --log-prefix="$dir/log" >"$dir/out" 2>&1 &
    local bench=$!
    sleep "$((seconds / 2))"
    local memory worker_pid worker_kb from to cpu_from cpu_to
    cpu_from=$(cpu) from=$(date +%s.%N)
    sleep "$((seconds / 4))"
    cpu_to=$(cpu) to=$(date +%s.%N)
    memory=$(sum_private)
    worker_pid=$(sql -c "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_sketch inference worker'")
    worker_kb=$(private "$worker_pid")
    wait "$bench" || { cat "$dir/out" >&2; exit 1; }
    cat "$dir"/log.* | awk -v from="$from" -v to="$to" '{ end = $5 + $6 / 1e6; if (end > from && end <= to) print $3 / 1000 }' | sort -n |
        awk -v wall="$(awk -v a="$from" -v b="$to" 'BEGIN { print b - a }')" -v cpu="$(awk -v a="$cpu_from" -v b="$cpu_to" 'BEGIN { print b - a }')" \
            -v memory="$memory" -v worker="$worker_kb" '
            { latency[NR] = $1 }
            END { printf "%.1f %.1f %.1f %d %d %.2f\n", NR / wall, latency[int((NR + 1) / 2)], latency[int(NR * 0.95 + 0.999)], memory, worker, NR / cpu }'
}

column() { awk -v c="$2" '{ print $c }' "$1" | median; }

# Memory of a connection that embeds nothing, and of one with its own network.
cat >"$dir/plain.sql" <<'SQL'
\set x random(1, 2000)
SELECT id FROM photo, (SELECT fused AS s, fresh(convert_to('[[[:x,200,100,20],[30,200,210,90]]]', 'UTF8')) FROM photo WHERE id = :x OFFSET 0) AS q ORDER BY fused <-> s LIMIT 10;
SELECT octet_length(fresh(bytes)) FROM image;
SQL
"$bindir/pgbench" -n -M simple -c 20 -T 6 -f "$dir/plain.sql" >/dev/null 2>&1 & bench=$!
sleep 4; plain=$(($(sum_private) / 20)); wait "$bench"
read -r _ _ _ one _ <<<"$(run connection 0 1)"
buffers=$(sql -c "SELECT pg_size_bytes(current_setting('shared_buffers')) / 1024")
echo "private memory: a connection that embeds nothing $((plain / 1024)) MB, one with its own network $((one / 1024)) MB; shared buffers $((buffers / 1024)) MB"

for clients in $connections; do
    modes="worker:0 connection:1"
    # With many connections, one thread per core in each has never been the fastest.
    [ "$clients" -gt 8 ] || modes="$modes connection:0"
    if [ "$(awk '/^MemAvailable/ { print $2 }' /proc/meminfo)" -lt $((clients * one * 3 / 2)) ]; then
        echo "$clients connections with a network each would take $((clients * one / 1024)) MB: too much for this machine"
        modes=worker:0
    fi
    rm -f "$dir"/result.*
    for _ in $(seq "$rounds"); do
        for mode in $modes; do
            run "${mode%:*}" "${mode#*:}" "$clients" >>"$dir/result.$mode"
        done
    done
    best=
    for file in "$dir"/result.connection:*; do
        [ -f "$file" ] || continue
        if [ -z "$best" ] || awk -v a="$(column "$file" 6)" -v b="$(column "$dir/result.$best" 6)" 'BEGIN { exit a <= b }'; then best=${file##*result.}; fi
    done
    for mode in worker:0 $best; do
        file=$dir/result.$mode
        echo "$clients connections, ${mode%:*}: $(column "$file" 1) statements/s, $(column "$file" 6) for each second of CPU time," \
            "p50 $(column "$file" 2) ms, p95 $(column "$file" 3) ms, private memory $(($(column "$file" 4 | cut -d. -f1) / 1024)) MB of connections," \
            "$(($(column "$file" 5 | cut -d. -f1) / 1024)) MB of the worker"
    done
    worker=$dir/result.worker:0
    [ -z "$best" ] || awk -v w="$(column "$worker" 6)" -v c="$(column "$dir/result.$best" 6)" -v wt="$(column "$worker" 1)" -v ct="$(column "$dir/result.$best" 1)" -v n="$clients" \
        'BEGIN { printf "%d connections: ratio of statements per CPU second %.2f, per second %.2f (worker / best of connections)\n", n, w / c, wt / ct }'
    awk -v m="$(column "$worker" 4)" -v own="$(column "$worker" 5)" -v plain="$plain" -v n="$clients" -v one="$one" -v buffers="$buffers" 'BEGIN {
        printf "%d connections: private memory with the worker is %.2f of one session with its own network plus shared buffers; %.2f without what as many connections take that embed nothing\n",
            n, (m + own) / (one + buffers), (m + own - n * plain) / (one + buffers) }'
done

mkdir "$dir/photos"
find "$photos" -name '*.jpg' | sort | awk 'NR % 5 == 1 && ++n <= 400' | xargs cp -t "$dir/photos"
chmod -R a+rX "$dir/photos"
sql <<SQL
CREATE TABLE bulk (id serial PRIMARY KEY, image bytea);
INSERT INTO bulk (image) SELECT pg_read_binary_file('$dir/photos/' || name) FROM pg_ls_dir('$dir/photos') AS name;
SELECT sketch_enable('bulk', 'image', embed => false) \g /dev/null
SET client_min_messages = warning;
CALL sketch_embed_photos('bulk'); -- and its codebook, once
SQL
# Milliseconds of a statement, after a warm-up has loaded the network.
milliseconds() { # mode statement
    sql -c "SET pg_sketch.worker = $1" -c "SET client_min_messages = warning" -c "SELECT photo_embed(bytes) IS NULL FROM image" -c '\timing on' -c "$2" | sed -n 's/^Time: \([0-9.]*\).*/\1/p' | tail -n 1
}
rm -f "$dir"/bulk.*
for _ in $(seq "$rounds"); do
    for mode in on off; do
        sql -c "ALTER TABLE bulk DISABLE TRIGGER ALL" -c "UPDATE bulk SET embedding = NULL, fused = NULL" -c "VACUUM bulk"
        milliseconds $mode "CALL sketch_embed_photos('bulk')" >>"$dir/bulk.$mode"
        milliseconds $mode "SELECT count(photo_embed(image)) FROM bulk" >>"$dir/bulk.$mode.rows"
    done
done
for mode in on off; do
    awk -v bulk="$(median <"$dir/bulk.$mode")" -v rows="$(median <"$dir/bulk.$mode.rows")" -v mode=$mode 'BEGIN {
        printf "400 photos, pg_sketch.worker = %s: bulk path %.0f photos/s, row by row %.0f, ratio %.2f\n", mode, 4e5 / bulk, 4e5 / rows, rows / bulk }'
done
