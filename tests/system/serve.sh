#!/usr/bin/env bash
# The inference worker: the same embeddings as without it, cancels, timeouts, its termination and restart, model replacement.
#   tests/system/serve.sh [DIR]   makes a cluster of its own, because the worker must be preloaded; DIR is not used
set -euo pipefail
cd "$(dirname "$0")/../.."
dir=$(mktemp -d "${TMPDIR:-/var/tmp}/pg_sketch-serve.XXXXXX")
chmod 755 "$dir"
stopped=
cleanup() {
    [ -z "$stopped" ] || kill -CONT "$stopped" 2>/dev/null || true
    tests/cluster.sh remove "$dir"
}
trap cleanup EXIT
preload="shared_preload_libraries = 'pg_sketch'"

# The SQL tests pass with the worker, too.
SETTINGS=$preload OUTPUT=$PWD/.build/regress-worker tests/run.sh setup embed once codebook gallery hostile >"$dir/regress.log" 2>&1 ||
    { cat "$dir/regress.log" >&2; exit 1; }

SETTINGS="$preload
pg_sketch.queue_size = 8
pg_sketch.max_batch = 4
pg_sketch.worker_models = 1" tests/cluster.sh start "$dir" >/dev/null
export PGHOST=$dir PGUSER=postgres PGDATABASE=postgres PGOPTIONS='--client-min-messages=warning'
psql=$("$PG_CONFIG" --bindir)/psql
sql() { "$psql" -X -qAt --set ON_ERROR_STOP=1 "$@"; }
fail() { echo "$*" >&2; tail -n 20 "$dir/server.log" >&2; exit 1; }
is() { [ "$2" = "$3" ] || fail "$1: expected \"$2\", found \"$3\""; }
worker() { sql -c "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_sketch inference worker'"; }
# Repeats a query until it returns the expected value.
becomes() {
    local found
    for _ in $(seq 100); do
        found=$(sql -c "$3")
        [ "$found" != "$2" ] || return 0
        sleep 0.1
    done
    is "$1" "$2" "$found"
}

sql <<'SQL'
CREATE EXTENSION pg_sketch;
SELECT sketch_load_model() \g /dev/null
CREATE TABLE image (name text PRIMARY KEY, bytes bytea);
\set photo `base64 -w0 model/tests/fixtures/photo.png`
\set jpeg `base64 -w0 model/tests/fixtures/plain.jpg`
\set webp `base64 -w0 model/tests/fixtures/lossy.webp`
\set face `base64 -w0 model/tests/fixtures/face.json`
\set scan `base64 -w0 model/tests/fixtures/face_scan.png`
INSERT INTO image VALUES ('photo', decode(:'photo', 'base64')), ('jpeg', decode(:'jpeg', 'base64')), ('webp', decode(:'webp', 'base64')),
                         ('face', decode(:'face', 'base64')), ('scan', decode(:'scan', 'base64'));
SQL

# Only processes that run the network have threads, and these threads block all signals.
becomes "worker" "running; it runs the network for all connections" "SELECT value FROM sketch_status() WHERE name = 'worker'"
sql -c "SELECT photo_embed(bytes) FROM image WHERE name = 'photo'" >/dev/null
postmaster=$(head -n 1 "$dir/data/postmaster.pid")
is "threads of the postmaster" 1 "$(find "/proc/$postmaster/task" -mindepth 1 -maxdepth 1 | wc -l)"
! grep -q onnxruntime "/proc/$postmaster/maps" || fail "the postmaster has loaded ONNX Runtime"
worker=$(worker)
[ "$(find "/proc/$worker/task" -mindepth 1 -maxdepth 1 | wc -l)" -gt 1 ] || fail "the worker has no thread for the network"
for task in /proc/"$worker"/task/*; do
    # All but SIGKILL, SIGSTOP, and the two that the C library reserves.
    [ "${task##*/}" = "$worker" ] || is "signals that thread ${task##*/} blocks" fffffffe7ffbfeff "$(awk '/^SigBlk/ { print $2 }' "$task/status")"
done

# The same image gives the same embedding alone, in a batch, and in the connection, up to the last bit of half precision.
batched=$(sql <<'SQL'
CREATE TABLE photo (id int PRIMARY KEY, image bytea);
INSERT INTO photo SELECT i, bytes || convert_to(repeat(' ', i), 'UTF8') FROM generate_series(1, 40) AS i, image WHERE name = (ARRAY['photo', 'jpeg', 'webp'])[i % 3 + 1];
SELECT sketch_enable('photo', 'image', embed => false) \g /dev/null
SELECT sketch_stat_reset() \g /dev/null
-- With max_wait the batches show how many images the bulk path keeps in flight, however fast the machine is: half of the queue,
-- 4, which two runners share on a CPU.
ALTER SYSTEM SET pg_sketch.max_wait = '200ms';
SELECT pg_reload_conf() \g /dev/null
SELECT pg_sleep(0.2) \g /dev/null
CALL sketch_embed_photos('photo');
ALTER SYSTEM RESET pg_sketch.max_wait;
SELECT pg_reload_conf() \g /dev/null
SELECT sum(images) = 40 AND sum(images) / sum(batches) > 1.5 AND sum(requests) = 1 AND sum(errors) = 0 FROM sketch_stat WHERE place = 'worker';
CREATE TABLE alone AS SELECT id, photo_embed(image) AS embedding FROM photo;
SET pg_sketch.worker = off;
CREATE TABLE here AS SELECT id, photo_embed(image) AS embedding FROM photo;
SQL
)
is "the bulk path fills batches" t "$batched"
is "embeddings that differ by more than one half-precision step" 0 "$(sql -c "
    SELECT count(*) FROM photo AS p JOIN alone AS a USING (id) JOIN here AS h USING (id),
        LATERAL unnest(p.embedding::real[], a.embedding::real[], h.embedding::real[]) AS v (p, a, h)
    WHERE greatest(abs(p - h), abs(a - h)) > greatest(abs(h), 2 ^ -14) * 2 ^ -10")"
echo "$(sql -c "SELECT count(*) || ' of ' || (SELECT count(*) FROM here) || ' embeddings are the same to the bit in the worker, in its batches and in the connection'
    FROM photo AS p JOIN alone AS a USING (id) JOIN here AS h USING (id) WHERE p.embedding::text = h.embedding::text AND a.embedding::text = h.embedding::text")"

# While the worker hangs, cancels and timeouts still take effect.
took() { # milliseconds of a statement that fails with $1
    local start end message
    start=$(date +%s%N)
    message=$(sql -c "$2" 2>&1) && fail "expected an error: $1"
    end=$(date +%s%N)
    grep -q "$1" <<<"$message" || fail "expected \"$1\", found \"$message\""
    echo $(((end - start) / 1000000))
}
# Sets how many milliseconds a connection takes, and how late a cancel may be: 100 ms, or ten connections on a busy machine.
calibrate() {
    connect=$(date +%s%N) && sql -c 'SELECT 1' >/dev/null && connect=$((($(date +%s%N) - connect) / 1000000))
    limit=$((connect > 10 ? 10 * connect : 100))
}
stopped=$(worker)
kill -STOP "$stopped"
embed="SELECT sketch_embed(bytes || convert_to('  ', 'UTF8')) FROM image WHERE name = 'face'"
for try in 1 2 3; do # on a busy machine, the best of three
    calibrate
    late=$(($(took "statement timeout" "SET statement_timeout = 200; $embed") - 200 - connect))
    [ "$late" -gt "$limit" ] || break
done
[ "$late" -le "$limit" ] || fail "a cancel took $late ms"
took "timeout of the inference worker" "SET pg_sketch.worker_timeout = 150; $embed" >/dev/null
# When the queue is full, the next image waits for a slot. Connections with a slot and without one can be canceled.
crowd=()
for i in $(seq 10); do
    sql -c "SET statement_timeout = 1500; $embed" >/dev/null 2>&1 &
    crowd+=($!)
done
becomes "places of the queue" "8 of 8 places taken" "SELECT value FROM sketch_status() WHERE name = 'worker_queue'"
took "statement timeout" "SET statement_timeout = 200; $embed" >/dev/null
wait "${crowd[@]}" || true
kill -CONT "$stopped" && stopped=
becomes "places of the queue" "0 of 8 places taken" "SELECT value FROM sketch_status() WHERE name = 'worker_queue'"
sql -c "$embed" >/dev/null

# A long batch can be stopped between two nodes of the graph, in the worker and in the connection.
sql -c "CREATE TABLE many AS SELECT i AS id, bytes || convert_to(repeat(' ', i), 'UTF8') AS image FROM generate_series(1, 512) AS i, image WHERE name = 'photo'"
sql -c "ALTER TABLE many ADD PRIMARY KEY (id)" -c "SELECT sketch_enable('many', 'image', embed => false)" -c "ALTER SYSTEM SET pg_sketch.max_batch = 64" -c "SELECT pg_reload_conf()" >/dev/null
for mode in on off; do
    for try in 1 2 3; do
        calibrate
        time=$(sql -c "SET pg_sketch.worker = $mode" -c "SELECT photo_embed(bytes) FROM image WHERE name = 'jpeg'" -c "SET statement_timeout = 300" \
            -c '\timing on' -c "CALL sketch_embed_photos('many')" 2>&1) && fail "512 images were embedded in 300 ms"
        grep -q "statement timeout" <<<"$time" || fail "expected a timeout, found \"$time\""
        late=$(($(sed -n 's/^Time: \([0-9]*\).*/\1/p' <<<"$time" | tail -n 1) - 300))
        [ "$late" -gt "$limit" ] || break
    done
    [ "$late" -le "$limit" ] || fail "with pg_sketch.worker = $mode a cancel in a batch took $late ms"
done
sql -c "ALTER SYSTEM RESET pg_sketch.max_batch" -c "SELECT pg_reload_conf()" -c "DROP TABLE many" >/dev/null

# After termination the worker is started again, and the new one serves the queue.
sql -c "SELECT pg_terminate_backend($(worker))" >/dev/null
sql -c "$embed" >/dev/null
[ "$(worker)" != "$worker" ] || fail "the worker is the same"

# A replaced model is picked up and the least recently used one released. A damaged model is an error only for those who use it.
sql <<'SQL'
SELECT sketch_load_model('twin', onnx, manifest || '{"origin": "a twin"}') FROM sketch.model \g /dev/null
SELECT sketch_embed(bytes) FROM image WHERE name = 'face' \g /dev/null
SQL
is "models of the worker" t "$(sql -c "SELECT string_agg(split_part(value, ' ', 1), ' ') = sketch_current_model()::text FROM sketch_status() WHERE name = 'worker_model'")"
sql -c "INSERT INTO sketch.model SELECT 7, 'damaged', '\x0000000700000000000000000000000000000000000000000000000000000000', onnx, manifest FROM sketch.model WHERE name = 'twin'"
took "model is damaged" "SELECT sketch_embed(bytes, 'damaged') FROM image WHERE name = 'face'" >/dev/null
# A copy of a model that is damaged is named, removed, and written anew.
sql <<'SQL'
SELECT sketch_load_model('triplet', onnx, manifest || '{"origin": "a triplet"}') FROM sketch.model WHERE name = 'twin' \g /dev/null
SQL
copy=base/pgsql_tmp/pgsql_tmp_sketch_$(sql -c "SELECT encode(sha256, 'hex') FROM sketch.model WHERE name = 'triplet'")
printf '\x10\0\0\0\0\0\0\0{"format": 1234}' >"$dir/data/$copy"
triplet="SELECT sketch_embed(bytes, 'triplet') FROM image WHERE name = 'face'"
took "file \"$copy\" is damaged" "$triplet" >/dev/null
for _ in $(seq 60); do
    ! sql -c "$triplet" >/dev/null 2>&1 || break
    sleep 1
done
sql -c "$triplet" >/dev/null
sql -c "DELETE FROM sketch.model WHERE name IN ('damaged', 'triplet', 'twin')"
took "CUDA support" "SET pg_sketch.device = 'cuda:1'; SELECT sketch_embed(bytes) FROM image WHERE name = 'face'" >/dev/null
sql -c "SELECT sketch_embed(bytes) FROM image WHERE name = 'face'" >/dev/null
# Devices that are not there take nobody's place.
released=$(grep -c "pg_sketch released" "$dir/server.log")
for number in 2 3 4; do
    took "CUDA support" "SET pg_sketch.device = 'cuda:$number'; SELECT sketch_embed(bytes) FROM image WHERE name = 'face'" >/dev/null
done
is "models that were released for devices that are not there" "$released" "$(grep -c "pg_sketch released" "$dir/server.log")"

REQUESTS=${REQUESTS:-640} tests/stress.sh "$dir"
