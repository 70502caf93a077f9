#!/usr/bin/env bash
# Stress test of the inference worker: many connections embed images while statements are canceled or time out, connections
# and the worker are terminated, and the worker is killed. Fails on a wrong answer, a hang or a leak.
#
# usage: [REQUESTS=10000] [CLIENTS=32] tests/stress.sh DIR
#
# DIR: a running cluster of tests/cluster.sh with pg_sketch in shared_preload_libraries.
set -euo pipefail
cd "$(dirname "$0")/.."
export PGHOST=$1 PGUSER=postgres PGDATABASE=postgres
psql=$("$PG_CONFIG" --bindir)/psql
requests=${REQUESTS:-10000} clients=${CLIENTS:-32}
work=$(mktemp -d)
children=()
trap 'kill "${children[@]}" 2>/dev/null || true; rm -rf "$work"' EXIT

sql() { "$psql" -X -qAt --set ON_ERROR_STOP=1 "$@"; }
# Retries a query while the server restarts after the kill.
patiently() {
    for _ in $(seq 100); do
        if sql -c "$1" 2>/dev/null; then return; fi
        sleep 0.2
    done
    echo "the server did not come back" >&2
    return 1
}
worker() { patiently "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_sketch inference worker'"; }
rss() { awk '/^VmRSS/ { print $2 }' "/proc/$1/status"; }
# Without those of tables, which PostgreSQL keeps open for the next time, and those of WaitLatchOrSocket, which has one while it waits.
open_files() { find "/proc/$1/fd" -mindepth 1 -printf '%l\n' 2>/dev/null | grep -vE '/(base/[0-9]+|global)/[0-9]|\[eventpoll\]' | sort || true; }

# Expected embeddings, from the connection's own network. Trailing white space makes an image that no cache contains.
sql <<'SQL'
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_sketch;
SELECT sketch_load_model() \g /dev/null
DROP TABLE IF EXISTS stress;
CREATE TABLE stress (id int PRIMARY KEY, is_photo bool, image bytea, embedding embedding);
INSERT INTO stress
SELECT i, false, convert_to(format('[[[%s],[%s]]]', (SELECT string_agg(((random() * 255)::int)::text, ',') FROM generate_series(0, i % 9 + 2)),
                                   (SELECT string_agg(((random() * 255)::int)::text, ',') FROM generate_series(0, i % 9 + 2))), 'UTF8')
FROM generate_series(0, 39) AS i;
\set photo `base64 -w0 model/tests/fixtures/photo.png`
\set jpeg `base64 -w0 model/tests/fixtures/plain.jpg`
INSERT INTO stress VALUES (40, true, decode(:'photo', 'base64')), (41, true, decode(:'jpeg', 'base64'));
SET pg_sketch.worker = off;
UPDATE stress SET embedding = CASE WHEN is_photo THEN photo_embed(image) ELSE sketch_embed(image) END;
CREATE OR REPLACE FUNCTION check_one() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    s stress;
    other bytea := convert_to(translate((random() * 1e9)::int::bit(31)::text, '01', E' \n'), 'UTF8');
    chosen int := floor(random() * 42);
    found embedding;
BEGIN
    SELECT * INTO STRICT s FROM stress WHERE id = chosen;
    IF s.is_photo THEN
        found := photo_embed(s.image || other);
    ELSE
        found := sketch_embed(s.image || other);
    END IF;
    RETURN CASE WHEN found::text = s.embedding::text THEN 'same' WHEN found <-> s.embedding < 0.001 THEN 'close' ELSE 'wrong' END;
END $$;
SELECT count(*) FILTER (WHERE a.embedding <-> b.embedding < 0.001) FROM stress AS a, stress AS b WHERE a.id < b.id \gset
\if :count
    \warn two images of the test are alike
    \quit
\endif
SQL

client() {
    local number=$1 quota=$((requests / clients)) asked=0
    while [ "$asked" -lt "$quota" ]; do
        for i in $(seq 20); do
            [ $((i % 7)) != "$((number % 7))" ] || echo "SET statement_timeout = $((RANDOM % 60 + 1));"
            echo 'SELECT check_one();'
            echo 'SET statement_timeout = 0;'
        done | "$psql" -X -qAt >>"$work/$number.out" 2>>"$work/$number.err" || sleep 0.2
        asked=$(cat "$work/$number.out" "$work/$number.err" 2>/dev/null | grep -cE '^(same|close|wrong)|ERROR|FATAL' || true)
    done
}

answered() { cat "$work"/*.out 2>/dev/null | wc -l; }

# Cancels and terminates connections at random, in proportion to the answers: a slow machine must not cancel them all.
harass() {
    local seen=0 now
    while :; do
        now=$(answered)
        if [ $((now - seen)) -ge 8 ]; then
            seen=$now
            sql -c "SELECT CASE WHEN random() < 0.8 THEN pg_cancel_backend(pid) ELSE pg_terminate_backend(pid) END
                    FROM pg_stat_activity WHERE backend_type = 'client backend' AND query LIKE '%check_one%' AND pid <> pg_backend_pid()
                    ORDER BY random() LIMIT 2" >/dev/null 2>&1 || true
        fi
        sleep 0.1
    done
}

reach() {
    local deadline=$((SECONDS + requests / 5 + 120))
    while [ "$(answered)" -lt "$1" ]; do
        [ "$SECONDS" -lt "$deadline" ] || { echo "hang: $(answered) answers after $SECONDS s" >&2; exit 1; }
        alive=0
        for child in "${clients_running[@]}"; do ! kill -0 "$child" 2>/dev/null || alive=1; done
        [ "$alive" = 1 ] || break
        sleep 0.3
    done
}

clients_running=()
for number in $(seq "$clients"); do
    client "$number" &
    clients_running+=($!)
done
children+=("${clients_running[@]}")
harass &
harasser=$!
children+=("$harasser")

reach $((requests / 5))
sql -c "SELECT pg_terminate_backend($(worker))" >/dev/null 2>&1 || true
reach $((requests * 2 / 5))
kill -9 "$(worker)"
reach $((requests * 3 / 5))
settled=$(worker)
before=$(rss "$settled") files=$(open_files "$settled")
deadline=$((SECONDS + requests / 5 + 120))
for child in "${clients_running[@]}"; do
    while kill -0 "$child" 2>/dev/null; do
        [ "$SECONDS" -lt "$deadline" ] || { echo "hang: a client does not end" >&2; exit 1; }
        sleep 0.2
    done
done
kill "$harasser" 2>/dev/null || true
after=$(rss "$settled")

count() { cat "$work"/*.out "$work"/*.err | grep -cE "$1" || true; }
echo "$(count '^same') same, $(count '^close') close, $(count '^wrong') wrong, $(count 'user request|statement timeout') canceled," \
    "$(count 'terminating connection|server closed') cut off, $(count 'worker was stopped') told that the worker stopped"
others=$(cat "$work"/*.err | grep -E 'ERROR|FATAL|PANIC' | grep -vE \
    'user request|statement timeout|terminating connection|worker was stopped|starting up|recovery mode|shutting down|connection to server' || true)
[ -z "$others" ] || { echo "unexpected: $(sort <<<"$others" | uniq -c | head)" >&2; exit 1; }
[ "$(count '^wrong')" = 0 ] || { echo "wrong answers" >&2; exit 1; }
[ "$(count '^(same|close)')" -ge $((requests / 2)) ] || { echo "less than half was answered" >&2; exit 1; }
[ "$(worker)" = "$settled" ] || { echo "the worker has ended since it was killed" >&2; exit 1; }
# What was open in the middle of a request is closed by now, or soon.
for _ in $(seq 50); do
    left=$(open_files "$settled")
    [ "$(wc -l <<<"$left")" -gt "$(wc -l <<<"$files")" ] || break
    sleep 0.2
done
echo "worker: $before kB, $(wc -l <<<"$files") files, at the end $after kB, $(wc -l <<<"$left") files"
[ "$after" -le $((before * 11 / 10 + 8192)) ] || { echo "the worker has grown" >&2; exit 1; }
[ "$(wc -l <<<"$left")" -le "$(wc -l <<<"$files")" ] || { echo "the worker has left files open:" "$(diff <(echo "$files") <(echo "$left"))" >&2; exit 1; }
# A connection that was terminated a moment ago may still hold its slot.
for _ in $(seq 20); do
    taken=$(patiently "SELECT value FROM sketch_status() WHERE name = 'worker_queue'")
    [ "${taken%% *}" != 0 ] || break
    sleep 0.2
done
[ "${taken%% *}" = 0 ] || { echo "leaked: $taken" >&2; exit 1; }
[ "$(patiently 'SELECT check_one()')" = same ] || { echo "the next request fails" >&2; exit 1; }
