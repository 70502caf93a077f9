#!/usr/bin/env bash
# Kills the server, or one of its connections, at random moments of inserts, updates, VACUUM and builds. After recovery,
# sketch_check_index must find the indexes intact, and their answers must be those of a sequential scan.
#   tests/system/index_crash.sh DIR   makes a cluster of its own, beside DIR
#   ROUNDS=20 kills more often; SEED repeats the moments of an earlier run
set -euo pipefail
cd "$(dirname "$0")/../.."
bindir=$("$PG_CONFIG" --bindir)
dir=$1-crash rounds=${ROUNDS:-3}
RANDOM=${SEED:=$$}
export PGHOST=$dir PGUSER=postgres PGOPTIONS='--client-min-messages=error'
trap 'tests/cluster.sh remove "$dir"' EXIT
sql() { "$bindir/psql" -X --quiet --set ON_ERROR_STOP=1 --no-align --tuples-only --dbname postgres "$@"; }
fail() { echo "$* (SEED=$SEED)" >&2; exit 1; }

SETTINGS="max_wal_size = 64MB
checkpoint_timeout = 30s
maintenance_work_mem = 96MB
min_parallel_table_scan_size = 0
autovacuum_naptime = 1s
wal_consistency_checking = 'generic'" tests/cluster.sh start "$dir" >/dev/null
sql <<'SQL'
CREATE EXTENSION pg_sketch;
CREATE FUNCTION point(n bigint) RETURNS embedding LANGUAGE sql IMMUTABLE AS $$
    SELECT array_agg(sin(n % 50 * i * 1.7) + 0.2 * sin(n * i * 0.37) ORDER BY i)::real[]::embedding FROM generate_series(1, 64) AS i
$$;
CREATE TABLE photo (id bigserial PRIMARY KEY, e embedding);
CREATE TABLE built (id bigserial PRIMARY KEY, e embedding);
CREATE UNLOGGED TABLE passing (id bigserial PRIMARY KEY, e embedding);
CREATE INDEX photo_e ON photo USING ivfexact (e);
CREATE INDEX passing_e ON passing USING ivfexact (e);
INSERT INTO photo (e) SELECT point(n) FROM generate_series(1, 3000) AS n;
INSERT INTO built (e) SELECT point(n) FROM generate_series(1, 6000) AS n;
CREATE INDEX built_e ON built USING ivfexact (e);
CREATE TABLE query AS SELECT q, point(q) AS e FROM generate_series(1, 300, 7) AS q;
SQL

# Runs statements of one kind, one after another, until the server is gone.
load() {
    for ((i = 0; ; i++)); do
        case $1 in
        insert) echo "INSERT INTO $2 (e) SELECT point((random() * 1e6)::bigint) FROM generate_series(1, 50);" ;;
        change) echo "UPDATE photo SET e = point(id + $i) WHERE id % 97 = $((i % 97)); DELETE FROM photo WHERE id % 89 = $((i % 89));" ;;
        vacuum) echo "VACUUM photo; CHECKPOINT;" ;;
        build) echo "REINDEX INDEX built_e; CREATE INDEX CONCURRENTLY again ON built USING ivfexact (e); DROP INDEX again;" ;;
        esac
    done | sql >/dev/null 2>&1 || true
}

answers() {
    sql -c "SET enable_seqscan = $1; SET enable_indexscan = $2;" -c "SELECT q, (SELECT string_agg(d::text, ' ') FROM
        (SELECT t.e <-> query.e AS d FROM $3 AS t ORDER BY t.e <-> query.e LIMIT 20) AS n) FROM query"
}

for ((round = 1; round <= rounds; round++)); do
    for kind in "insert photo" "insert photo" "insert passing" change vacuum build; do load $kind & done
    sleep "$((RANDOM % 2)).$((RANDOM % 900 + 100))"
    if ((round % 3 == 0)); then
        # The postmaster sees a connection crash, ends all others, and recovers.
        backends=$(sql -c "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()" | xargs)
        victims=($backends)
        kill -9 "${victims[RANDOM % ${#victims[@]}]}"
        wait
        for ((i = 0; i < 600; i++)); do
            ! sql -c "SELECT" >/dev/null 2>&1 || break
            sleep 0.1
        done
    else
        tests/cluster.sh kill "$dir"
        wait
        tests/cluster.sh start "$dir" >/dev/null 2>&1 || { tail -20 "$dir/server.log" >&2; fail "round $round: the server does not come up"; }
    fi
    for table in photo built passing; do
        sql -c "SELECT rows >= visible FROM sketch_check_index('${table}_e')" >/dev/null || fail "round $round: index of $table is not whole"
        diff <(answers on off $table) <(answers off on $table) >/dev/null || fail "round $round: answers from $table differ"
    done
    again=$(sql -c "SELECT count(*) FROM pg_class WHERE relname = 'again'")
    [ "$again" = 0 ] || sql -c "DROP INDEX again"
    rows=$(sql -c "SELECT count(*) FROM photo")
done
[ "$rows" -gt 3000 ] || fail "nothing was inserted"

# A lost page is detected.
sql -c "CREATE TABLE damaged AS TABLE built" -c "CREATE INDEX damaged_e ON damaged USING ivfexact (e)" -c "CHECKPOINT"
file=$dir/data/$(sql -c "SELECT pg_relation_filepath('damaged_e')") pages=$(sql -c "SELECT pages FROM sketch_check_index('damaged_e')")
tests/cluster.sh stop "$dir"
dd if=/dev/zero of="$file" bs=8192 count=1 seek=$((1 + RANDOM % (pages - 1))) conv=notrunc status=none
tests/cluster.sh start "$dir" >/dev/null
! found=$(sql -c "SELECT sketch_check_index('damaged_e')" 2>&1) || fail "a lost page was not noticed"
[[ $found == *"index is damaged"* ]] || fail "a lost page: $found"
echo "$rounds kills survived, $rows rows at the end"
