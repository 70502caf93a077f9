#!/usr/bin/env bash
# While other sessions insert, update, delete, VACUUM and REINDEX CONCURRENTLY, an index scan must return what a sequential
# scan of the same snapshot returns, and sketch_check_index must find the index intact.
#   tests/system/index_load.sh DIR   DIR: a running cluster of tests/cluster.sh
#   SECONDS_LONG=60 runs longer
set -euo pipefail
cd "$(dirname "$0")/../.."
bindir=$("$PG_CONFIG" --bindir)
export PGHOST=$1 PGUSER=postgres PGOPTIONS='--client-min-messages=error'
psql_in() { "$bindir/psql" -X --quiet --set ON_ERROR_STOP=1 --no-align --tuples-only --dbname "$@"; }
sql() { psql_in loaded "$@"; }
fail() { echo "$*" >&2; exit 1; }
end=$((SECONDS + ${SECONDS_LONG:-8}))

psql_in postgres -c "DROP DATABASE IF EXISTS loaded" -c "CREATE DATABASE loaded"
sql <<'SQL'
CREATE EXTENSION pg_sketch;
CREATE FUNCTION point(n bigint) RETURNS embedding LANGUAGE sql IMMUTABLE AS $$
    SELECT array_agg(sin(n % 50 * i * 1.7) + 0.2 * sin(n * i * 0.37) ORDER BY i)::real[]::embedding FROM generate_series(1, 32) AS i
$$;
CREATE TABLE photo (id bigserial PRIMARY KEY, e embedding) WITH (autovacuum_enabled = off);
INSERT INTO photo (e) SELECT point(n) FROM generate_series(1, 2000) AS n;
CREATE INDEX photo_e ON photo USING ivfexact (e);
CREATE TABLE query AS SELECT q, point(q) AS e FROM generate_series(1, 300, 17) AS q;
CREATE FUNCTION answers(by_index boolean) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('enable_seqscan', (NOT by_index)::text, true), set_config('enable_indexscan', by_index::text, true);
    RETURN (SELECT string_agg(n.d::text, ' ' ORDER BY q, n.d) FROM query,
            LATERAL (SELECT t.e <-> query.e AS d FROM photo AS t ORDER BY t.e <-> query.e LIMIT 30) AS n);
END
$$;
SQL

load() {
    for ((i = 0; SECONDS < end; i++)); do
        case $1 in
        insert) sql -c "INSERT INTO photo (e) SELECT point((random() * 1e6)::bigint) FROM generate_series(1, 40)" ;;
        change) sql -c "UPDATE photo SET e = point(id + $i) WHERE id % 53 = $((i % 53))" -c "DELETE FROM photo WHERE id % 47 = $((i % 47))" ;;
        vacuum) sql -c "VACUUM photo" ;;
        build) sql -c "REINDEX INDEX CONCURRENTLY photo_e" ;;
        esac
    done
}
loads=()
for kind in insert insert change vacuum build; do load $kind & loads+=($!); done
compared=0
while ((SECONDS < end)); do
    same=$(sql -c "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT answers(true) = answers(false); COMMIT")
    [ "$same" = t ] || fail "an ordered scan differs from a sequential scan: $same"
    # REINDEX CONCURRENTLY may replace the index between the lookup of its name and the check: then check the new one.
    until message=$(sql -c "SELECT sketch_check_index('photo_e')" 2>&1 >/dev/null); do
        grep -qE 'OID [0-9]+ does not exist|"photo_e_ccold" is not valid' <<<"$message" || fail "the index is not whole: $message"
    done
    compared=$((compared + 1))
done
for load in "${loads[@]}"; do wait "$load" || fail "a load failed"; done
sql -c "VACUUM photo"
[ "$(sql -c "SELECT rows = visible FROM sketch_check_index('photo_e')")" = t ] || fail "VACUUM left dead rows in the index"
rows=$(sql -c "SELECT count(*) FROM photo")
psql_in postgres -c "DROP DATABASE loaded"
echo "$compared comparisons under load, $rows rows at the end"
