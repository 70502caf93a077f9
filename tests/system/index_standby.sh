#!/usr/bin/env bash
# A streaming standby returns the primary's answers from its copy of an index, finds the copy intact, and can be promoted,
# one of a base backup under load in the middle of it, too. Each page that it replays is compared with the primary's
# (wal_consistency_checking).
#   tests/system/index_standby.sh DIR   makes clusters of its own, beside DIR
set -euo pipefail
cd "$(dirname "$0")/../.."
bindir=$("$PG_CONFIG" --bindir)
primary=$1-primary standby=$1-standby second=$1-second
export PGUSER=postgres PGOPTIONS='--client-min-messages=error'
trap 'tests/cluster.sh remove "$second"; tests/cluster.sh remove "$standby"; tests/cluster.sh remove "$primary"' EXIT
sql() { "$bindir/psql" -X --quiet --set ON_ERROR_STOP=1 --no-align --tuples-only --dbname postgres --host "$@"; }
fail() { echo "$*" >&2; exit 1; }

SETTINGS="wal_consistency_checking = 'generic'" tests/cluster.sh start "$primary" >/dev/null
sql "$primary" <<'SQL'
CREATE EXTENSION pg_sketch;
CREATE FUNCTION point(n bigint) RETURNS embedding LANGUAGE sql IMMUTABLE AS $$
    SELECT array_agg(sin(n % 50 * i * 1.7) + 0.2 * sin(n * i * 0.37) ORDER BY i)::real[]::embedding FROM generate_series(1, 64) AS i
$$;
CREATE TABLE photo (id bigserial PRIMARY KEY, e embedding) WITH (autovacuum_enabled = off);
INSERT INTO photo (e) SELECT point(n) FROM generate_series(1, 3000) AS n;
CREATE INDEX photo_e ON photo USING ivfexact (e);
CREATE TABLE query AS SELECT q, point(q) AS e FROM generate_series(1, 300, 7) AS q;
SQL
# A standby of a base backup.
start_standby() {
    mkdir -p "$1"
    local backup=("$bindir/pg_basebackup" --host="$primary" --pgdata="$1/data" --write-recovery-conf --checkpoint=fast --no-sync)
    if [ "$(id -u)" = 0 ]; then
        chown postgres "$1"
        (cd / && runuser -u postgres -- "${backup[@]}")
    else
        "${backup[@]}"
    fi
    echo "unix_socket_directories = '$1'" >>"$1/data/postgresql.conf"
    tests/cluster.sh start "$1" >/dev/null
}
start_standby "$standby"

answers() {
    sql "$1" -c "SET enable_seqscan = off" -c "SELECT q, (SELECT string_agg(d::text, ' ') FROM
        (SELECT t.e <-> query.e AS d FROM photo AS t ORDER BY t.e <-> query.e LIMIT 20) AS n) FROM query"
}
compare() {
    local lsn
    # A commit that is flushed, behind what VACUUM has written.
    lsn=$(sql "$primary" -c "SELECT FROM pg_logical_emit_message(true, 'pg_sketch', '')" -c "SELECT pg_current_wal_flush_lsn()" | tail -n 1)
    for ((i = 0; i < 300; i++)); do
        [ "$(sql "$standby" -c "SELECT pg_last_wal_replay_lsn() >= '$lsn'")" = f ] || break
        sleep 0.1
    done
    diff <(answers "$primary") <(answers "$standby") >/dev/null || fail "$1: the standby answers otherwise"
    diff <(sql "$primary" -c "SELECT * FROM sketch_check_index('photo_e')") <(sql "$standby" -c "SELECT * FROM sketch_check_index('photo_e')") ||
        fail "$1: the standby's index is another"
}

compare "base backup"
sql "$primary" -c "INSERT INTO photo (e) SELECT point(n) FROM generate_series(5001, 6000) AS n" -c "UPDATE photo SET e = point(id + 7) WHERE id % 5 = 0"
compare "inserts"
sql "$primary" -c "DELETE FROM photo WHERE id % 3 = 0" -c "VACUUM photo" -c "INSERT INTO photo (e) SELECT point(n) FROM generate_series(7001, 7500) AS n"
compare "vacuum"
sql "$primary" -c "REINDEX INDEX photo_e"
compare "reindex"
sql "$primary" -c "DROP INDEX photo_e; TRUNCATE photo; CREATE INDEX photo_e ON photo USING ivfexact (e)" \
    -c "INSERT INTO photo (e) SELECT point(n) FROM generate_series(1, 300) AS n"
compare "index built without rows"

# A base backup under load is a standby that can be promoted while the load goes on.
load() {
    for ((i = 0; ; i++)); do
        [ ! -e "$primary/stop" ] || return 0
        sql "$primary" -c "INSERT INTO photo (e) SELECT point((random() * 1e6)::bigint) FROM generate_series(1, 40)" \
            -c "DELETE FROM photo WHERE id % 89 = $((i % 89))" -c "VACUUM photo"
    done
}
load &
load=$!
start_standby "$second"
rows=$(sql "$second" -c "SELECT count(*) FROM photo")
for ((i = 0; i < 300; i++)); do
    [ "$(sql "$second" -c "SELECT count(*) FROM photo")" = "$rows" ] || break
    sleep 0.1
done
sql "$second" -c "SELECT pg_promote()" >/dev/null
touch "$primary/stop"
wait "$load" || fail "the load failed"
sql "$second" -c "SELECT sketch_check_index('photo_e')" >/dev/null || fail "promoted under load, the index is not whole"
by_scan() { sql "$1" -c "SET enable_indexscan = off" -c "SELECT q, (SELECT string_agg(d::text, ' ') FROM
    (SELECT t.e <-> query.e AS d FROM photo AS t ORDER BY t.e <-> query.e LIMIT 20) AS n) FROM query"; }
diff <(answers "$second") <(by_scan "$second") >/dev/null || fail "promoted under load, the answers are others"
sql "$second" -c "INSERT INTO photo (e) SELECT point(n) FROM generate_series(8001, 8100) AS n" -c "VACUUM photo"
[ "$(sql "$second" -c "SELECT rows = visible FROM sketch_check_index('photo_e')")" = t ] || fail "promoted under load, an insert went wrong"

compare "load"
! grep "inconsistent page" "$standby/server.log" "$second/server.log" || fail "a replayed page is not the primary's"
before=$(answers "$primary")
tests/cluster.sh stop "$primary"
sql "$standby" -c "SELECT pg_promote()" >/dev/null
[ "$before" = "$(answers "$standby")" ] || fail "after promotion the answers are others"
sql "$standby" -c "INSERT INTO photo (e) SELECT point(n) FROM generate_series(8001, 8100) AS n"
[ "$(sql "$standby" -c "SELECT rows = visible FROM sketch_check_index('photo_e')")" = t ] || fail "after promotion an insert went wrong"
echo "the standby answers as the primary, and takes over"
