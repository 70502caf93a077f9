#!/usr/bin/env bash
# The background worker: everything is embedded, once, whatever is killed in the middle; it acts with the table owner's rights,
# waits for nobody, and is in nobody's way.
#   tests/system/background.sh [DIR]   makes a cluster of its own, because the worker must be preloaded; DIR is not used
set -euo pipefail
cd "$(dirname "$0")/../.."
dir=$(mktemp -d "${TMPDIR:-/var/tmp}/pg_sketch-background.XXXXXX")
chmod 755 "$dir"
trap 'tests/cluster.sh remove "$dir"' EXIT
SETTINGS="shared_preload_libraries = 'pg_sketch'
fsync = on" tests/cluster.sh start "$dir" >/dev/null
export PGHOST=$dir PGUSER=postgres PGDATABASE=photos PGOPTIONS='--client-min-messages=warning'
bindir=$("$PG_CONFIG" --bindir)
sql() { "$bindir/psql" -X -qAt --set ON_ERROR_STOP=1 "$@"; }
fail() { echo "$*" >&2; tail -n 20 "$dir/server.log" >&2; exit 1; }
is() { [ "$2" = "$3" ] || fail "$1: expected \"$2\", found \"$3\""; }
# Repeats a query until it returns the expected value.
becomes() {
    local found=
    for _ in $(seq 300); do
        found=$(sql -c "$3" 2>&1) || true
        [ "$found" != "$2" ] || return 0
        sleep 0.1
    done
    is "$1" "$2" "$found"
}
worker() { sql -d postgres -c "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_sketch background worker' AND datname = 'photos'"; }
workers() { sql -d postgres -c "ALTER SYSTEM SET pg_sketch.background_workers = $1" -c 'SELECT pg_reload_conf()' >/dev/null; }
wait_for() { is "sketch_wait $1" t "$(sql -c "SELECT sketch_wait('$1', '5 min')")"; }
# Nothing is lost, nothing is twice: each photo has its own embedding, and the queue is empty.
check() {
    wait_for photo
    is "photos without the right embedding, $1" 0 "$(sql -c "SELECT count(*) FROM photo JOIN kind USING (kind) WHERE (photo.embedding <-> kind.embedding = 0) IS NOT TRUE")"
    is "queue, $1" 0 "$(sql -c 'SELECT count(*) FROM sketch.queue')"
}

sql -d postgres -c 'CREATE DATABASE photos'
sql <<'SQL'
CREATE EXTENSION pg_sketch;
\set jpeg `base64 -w0 model/tests/fixtures/plain.jpg`
-- One JPEG with other quantisation tables is another photo.
CREATE TABLE kind AS SELECT n AS kind, set_byte(bytes, position('\xffdb'::bytea IN bytes) + 4, n) AS image
FROM (SELECT decode(:'jpeg', 'base64')) AS v (bytes), generate_series(1, 80) AS n;
SELECT sketch_load_model() \g /dev/null
ALTER TABLE kind ADD embedding embedding;
UPDATE kind SET embedding = photo_embed(image);
CREATE TABLE photo (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, kind int, note text, image bytea);
SELECT sketch_enable('photo', 'image', mode => 'background') \g /dev/null
SQL
# insert N: photos of all kinds in turn.
insert() { echo "INSERT INTO photo (kind, image) SELECT kind, image FROM generate_series(1, $1) AS n JOIN kind ON kind = 1 + n % 80"; }
embedded="SELECT coalesce(sum(images), 0) FROM sketch_stat"

# Eight clients; each photo goes through the network once.
before=$(sql -c "$embedded")
printf '\\set k random(1, 80)\nINSERT INTO photo (kind, image) SELECT kind, image FROM kind WHERE kind = :k;\n' >"$dir/insert.sql"
"$bindir/pgbench" --no-vacuum --client=8 --jobs=2 --transactions=12 --file="$dir/insert.sql" >/dev/null 2>&1
check "after 8 clients"
is "photos" 96 "$(sql -c 'SELECT count(*) FROM photo')"
is "images embedded" 96 $(($(sql -c "$embedded") - before))
becomes "codebook of 96 photos" "96|t" "SELECT fused, codebook IS NOT NULL FROM sketch_gallery_status('photo')"

# The worker is terminated, then killed, then the server: in the middle of the queue.
middle() {
    sql -c "$(insert 60)" &
    inserted=$!
    for _ in $(seq 200); do
        count=$(sql -c 'SELECT count(*) FILTER (WHERE fused IS NOT NULL), count(*) FROM photo' 2>/dev/null) || count='|'
        [ "${count%|*}" = "${count#*|}" ] || [ "${count%|*}" -le "$1" ] || break
        sleep 0.05
    done
    wait "$inserted"
}
middle 100
sql -d postgres -c "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'pg_sketch background worker'" >/dev/null
check "after the worker was terminated"
total=$(sql -c 'SELECT count(*) FROM photo')
middle "$total"
pid=$(worker)
if [ -n "$pid" ]; then
    # The server may answer for a moment after the kill, until it notices.
    starts() { grep -c 'ready to accept connections' "$dir/server.log"; }
    before=$(starts)
    kill -9 "$pid"
    for _ in $(seq 3000); do [ "$(starts)" = "$before" ] || break; sleep 0.1; done
fi
becomes "server after a crash" "$((total + 60))" 'SELECT count(*) FROM photo'
check "after the worker was killed"
total=$(sql -c 'SELECT count(*) FROM photo')
middle "$total"
postmaster=$(head -n 1 "$dir/data/postmaster.pid")
kill -9 "$postmaster"
while kill -0 "$postmaster" 2>/dev/null; do sleep 0.1; done
# Its children have to end first.
for _ in $(seq 100); do
    tests/cluster.sh start "$dir" >/dev/null 2>&1 && break
    sleep 0.2
done
becomes "server that was killed" "$((total + 60))" 'SELECT count(*) FROM photo'
check "after the server was killed"

# What waits may be changed, locked, moved and dropped.
workers 0
becomes "workers that are switched off" 0 "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_sketch background worker'"
sql <<'SQL'
CREATE TABLE dropped (LIKE kind);
ALTER TABLE dropped DROP embedding;
SELECT sketch_enable('dropped', 'image', mode => 'background') \g /dev/null
INSERT INTO dropped (kind, image) SELECT kind, image FROM kind WHERE kind < 6;
INSERT INTO photo (kind, image) SELECT kind, image FROM kind WHERE kind < 10;
UPDATE photo SET note = 'changed' WHERE fused IS NULL AND kind = 1;
UPDATE photo SET (kind, image) = (SELECT kind, image FROM kind WHERE kind = 3) WHERE fused IS NULL AND kind = 2;
DELETE FROM photo WHERE fused IS NULL AND kind = 4;
VACUUM FULL photo;
\copy (SELECT kind, image FROM kind WHERE kind < 10) TO PROGRAM 'cat >"$PGHOST/copy"' (FORMAT binary)
\copy photo (kind, image) FROM PROGRAM 'cat "$PGHOST/copy"' (FORMAT binary)
DROP TABLE dropped;
SQL
# A row that somebody has locked waits, and nothing else does.
mkfifo "$dir/in"
sql <"$dir/in" >/dev/null 2>&1 &
locker=$!
exec 3>"$dir/in"
echo "BEGIN; SELECT FROM photo WHERE fused IS NULL AND kind = 5 LIMIT 1 FOR UPDATE;" >&3
becomes "lock" 1 "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'"
workers 2
becomes "photos beside a locked row" 1 'SELECT count(*) FROM photo WHERE fused IS NULL'
echo 'COMMIT;' >&3
exec 3>&-
wait "$locker"
check "after changes"

# The worker acts as the owner of the table, and can be led to nothing else. What a trigger says is not in the log's way.
sql <<'SQL'
CREATE ROLE curator;
GRANT CREATE ON SCHEMA public TO curator;
GRANT SELECT ON kind TO curator;
SET ROLE curator;
CREATE TABLE art (id int PRIMARY KEY, image bytea, seen text);
CREATE FUNCTION spy() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.seen := current_user;
    BEGIN
        PERFORM rolpassword FROM pg_catalog.pg_authid;
        NEW.seen := NEW.seen || ' read passwords';
    EXCEPTION WHEN insufficient_privilege THEN NULL;
    END;
    BEGIN
        RESET ROLE;
        NEW.seen := NEW.seen || ' reset the role';
    EXCEPTION WHEN OTHERS THEN NULL;
    END;
    BEGIN
        SET SESSION AUTHORIZATION postgres;
        NEW.seen := NEW.seen || ' took the session';
    EXCEPTION WHEN OTHERS THEN NULL;
    END;
    NEW.seen := NEW.seen || ' with ' || current_setting('search_path');
    RETURN NEW;
END $$;
CREATE TRIGGER spy BEFORE UPDATE ON art FOR EACH ROW EXECUTE FUNCTION spy();
SELECT sketch_enable('art', 'image', mode => 'background') \g /dev/null
INSERT INTO art SELECT kind, image FROM kind WHERE kind < 6;
SQL
wait_for art
is "what the worker may do" "curator with pg_catalog, pg_temp" "$(sql -c 'SELECT DISTINCT seen FROM art')"
sql <<'SQL'
SET ROLE curator;
CREATE FUNCTION later() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM rolpassword FROM pg_catalog.pg_authid; RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER later AFTER UPDATE ON art DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION later();
INSERT INTO art SELECT 10, image FROM kind WHERE kind = 1;
SQL
becomes "deferred trigger" "row (id)=(10)|cannot fire deferred trigger within security-restricted operation" \
    "SELECT photo, error FROM sketch.queued WHERE gallery = 'art'::regclass AND attempts > 0"
sql -c 'DROP TRIGGER later ON art' -c "CALL sketch_maintain('art')"
is "photos of art" 6 "$(sql -c 'SELECT count(fused) FROM art')"

# A broken photo is a failure with a reason, and nothing else.
sql -c "INSERT INTO photo (kind, image) VALUES (1, '\x00')" -c "$(insert 2)"
wait_for photo
is "failure" "failed|1" "$(sql -c "SELECT state, attempts FROM sketch.queued WHERE error LIKE '%not an image%' OR error IS NOT NULL")"
sql -c 'UPDATE photo SET (kind, image) = (SELECT kind, image FROM kind WHERE kind = 7) WHERE fused IS NULL'
wait_for photo
sql -c "CALL sketch_maintain('photo')"
check "after a broken photo"

# A prepared transaction, and a database that is dropped: no worker stays in it.
sql -d postgres -c 'CREATE DATABASE other'
sql -d other -c 'CREATE EXTENSION pg_sketch' -c 'CREATE TABLE photo (image bytea)' -c "SELECT sketch_enable('photo', 'image', mode => 'background')" >/dev/null
for _ in $(seq 200); do
    ! sql -d postgres -c 'DROP DATABASE other' 2>/dev/null || break
    sleep 0.1
done
is "databases" 0 "$(sql -d postgres -c "SELECT count(*) FROM pg_database WHERE datname = 'other'")"

# A dump holds the gallery; what waits there is found after the restore.
workers 0
becomes "workers that are switched off" 0 "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_sketch background worker'"
sql -c "$(insert 5)"
sql -d postgres -c 'CREATE DATABASE restored'
"$bindir/pg_dump" photos | sql -d restored >/dev/null
workers 2
PGDATABASE=restored becomes "photos after a restore" 0 'SELECT count(*) FROM photo WHERE fused IS NULL'
check "at the end"
is "processes that hold up shutdown" "" "$(tests/cluster.sh stop "$dir")"
! grep -E 'PANIC|segfault|TRAP' "$dir/server.log" || fail "the server is unwell"
echo "background: $total photos and more embedded once each, through terminations, kills, changes and a restore"
