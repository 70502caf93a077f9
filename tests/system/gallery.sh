#!/usr/bin/env bash
# Galleries beside other sessions: locks and concurrent changes while photos are embedded. The extension in a schema that is
# not on the search_path. Triggers of 0.1.0.
#   tests/system/gallery.sh DIR   DIR: a running cluster of tests/cluster.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
bindir=$("$PG_CONFIG" --bindir)
export PGHOST=$1 PGUSER=postgres PGDATABASE=gallery PGOPTIONS='--client-min-messages=warning'
work=$(mktemp -d)
trap 'exec 3>&-; rm -rf "$work"' EXIT

sql() { "$bindir/psql" -X --quiet --set ON_ERROR_STOP=1 --no-align --tuples-only "$@"; }
fail() { echo "$*" >&2; exit 1; }
is() { [ "$2" = "$3" ] || fail "$1: expected \"$2\", found \"$3\""; }
waits() {
    for _ in $(seq 300); do
        [ "$(sql -c "SELECT count(*) FROM pg_stat_activity WHERE application_name = '$1' AND wait_event_type = 'Lock'")" = 0 ] || return 0
        sleep 0.1
    done
    fail "session $1 did not wait for a lock"
}

sql -d postgres -c 'DROP DATABASE IF EXISTS gallery' -c 'CREATE DATABASE gallery'
sql >/dev/null <<'SQL'
CREATE SCHEMA hidden;
CREATE EXTENSION pg_sketch SCHEMA hidden;
\set photo `base64 -w0 model/tests/fixtures/photo.png`
\set jpeg `base64 -w0 model/tests/fixtures/plain.jpg`
CREATE TABLE fixture (name text, bytes bytea);
INSERT INTO fixture VALUES ('photo', decode(:'photo', 'base64')), ('jpeg', decode(:'jpeg', 'base64'));
CREATE TABLE photo (id int PRIMARY KEY, image bytea);
INSERT INTO photo SELECT n, bytes FROM fixture, generate_series(1, 4) AS n WHERE name = 'photo';
SQL

# A second session; tell sends it a line of statements and waits for their end.
mkfifo "$work/in"
PGAPPNAME=other sql <"$work/in" >"$work/out" 2>&1 &
exec 3>"$work/in"
told=0
tell() {
    told=$((told + 1))
    echo "$1 SELECT 'done $told';" >&3
    for _ in $(seq 300); do
        ! grep -q "done $told" "$work/out" || return 0
        sleep 0.1
    done
    cat "$work/out" >&2
    fail "the other session did not do: $1"
}

# sketch_enable embeds before it locks out other sessions.
tell 'BEGIN; LOCK TABLE photo IN ACCESS SHARE MODE;'
embedded=$(sql 2>&1 <<'SQL'
SET lock_timeout = '100ms';
\set ON_ERROR_STOP off
SELECT hidden.sketch_enable('photo', 'image');
SELECT value FROM hidden.sketch_status() WHERE name = 'photos_embedded';
SQL
)
is "photos embedded when the table is locked" 4 "$(tail -n 1 <<<"$embedded")"
[[ $embedded == *'canceling statement due to lock timeout'* ]] || fail "sketch_enable did not wait for the lock: $embedded"
tell 'COMMIT;'

# Photos that change between embedding and lock end with the right embeddings.
tell "BEGIN; UPDATE photo SET image = (SELECT bytes FROM fixture WHERE name = 'jpeg') WHERE id = 1; DELETE FROM photo WHERE id = 2; INSERT INTO photo SELECT 5, bytes FROM fixture WHERE name = 'jpeg';"
PGAPPNAME=enable sql -c "SELECT hidden.sketch_enable('photo', 'image')" >/dev/null &
enable=$!
waits enable
tell 'COMMIT;'
wait "$enable"
right="SELECT string_agg(id || CASE WHEN embedding OPERATOR(hidden.<->) hidden.photo_embed(image) = 0
       AND fused OPERATOR(hidden.<->) hidden.sketch_correct(embedding) = 0 THEN '' ELSE ' wrong' END, ',' ORDER BY id) FROM photo"
is "embeddings after changes during sketch_enable" 1,3,4,5 "$(sql -c "$right")"

# The embedding of an old photo is not written to a new one, with or without TID scans.
for scan in on off; do
    sql -c 'ALTER TABLE photo DISABLE TRIGGER ALL' \
        -c "UPDATE photo SET image = (SELECT bytes FROM fixture WHERE name = 'photo'), embedding = NULL, fused = NULL" \
        -c 'ALTER TABLE photo ENABLE TRIGGER ALL'
    tell "BEGIN; UPDATE photo SET image = (SELECT bytes FROM fixture WHERE name = 'jpeg') WHERE id = 3;"
    PGAPPNAME=embed PGOPTIONS="$PGOPTIONS -c enable_tidscan=$scan" sql -c "CALL hidden.sketch_embed_photos('photo')" &
    embed=$!
    waits embed
    tell 'COMMIT;'
    wait "$embed"
    is "embeddings after a change during sketch_embed_photos, TID scans $scan" 1,3,4,5 "$(sql -c "$right")"
done
exec 3>&-

# Everything works with an empty search_path.
sql >/dev/null <<'SQL'
SET search_path = '';
UPDATE public.photo SET image = image;
SELECT hidden.sketch_build_codebook('own', 'public.photo', prototypes => 1);
SELECT hidden.sketch_fuse(embedding, 'own') FROM public.photo;
SELECT hidden.sketch_distance(fused, '[[[0,99,50],[0,30,80]]]'::bytea) FROM public.photo;
CREATE INDEX ON public.photo USING ivfexact (fused);
SET enable_seqscan = off;
SELECT id FROM public.photo ORDER BY fused OPERATOR(hidden.<->) hidden.sketch_embed('[[[0,99,50],[0,30,80]]]'::bytea) LIMIT 1;
SELECT hidden.sketch_check_index('public.photo_fused_idx');
SELECT * FROM hidden.sketch_stat;
SQL

# The upgrade script makes galleries of triggers of 0.1.0.
sql -c "SELECT hidden.sketch_disable('photo')" >/dev/null
sql <<'SQL'
CREATE TABLE "Ol""d" (id int, "Bild é\1" bytea, e hidden.embedding, f hidden.embedding);
CREATE TRIGGER t BEFORE INSERT OR UPDATE OF "Bild é\1" ON "Ol""d"
    FOR EACH ROW EXECUTE FUNCTION hidden.sketch_trigger('Bild é\1', 'e', 'f', 'a codebook');
SQL
sed -n '/^-- Fills sketch.gallery from the triggers/,$p' sql/pg_sketch--0.1.0--0.2.0.sql | sql
is "gallery of a trigger of 0.1.0" '"Ol""d"|Bild é\1|e|f|a codebook|postgres|t' "$(sql -c \
    'SELECT relation, image_column, embedding_column, fused_column, codebook, codebook_owner, model_id = hidden.sketch_current_model() FROM sketch.galleries')"
sql -c "INSERT INTO \"Ol\"\"d\" SELECT 1, bytes FROM fixture"
sql -c "UPDATE \"Ol\"\"d\" SET f = '[1,2]@deadbeef'"
is "photos embedded by a trigger of 0.1.0" 2 "$(sql -c 'SELECT count(f) FROM "Ol""d" WHERE hidden.sketch_model_id(f) = hidden.sketch_current_model()')"

# DROP EXTENSION removes everything, and CREATE EXTENSION works in the same database again.
sql -c 'DROP EXTENSION pg_sketch CASCADE' -c 'DROP TABLE photo' -c 'CREATE EXTENSION pg_sketch' \
    -c "SELECT sketch_enable('fixture', 'bytes')" >/dev/null
sql -d postgres -c 'DROP DATABASE gallery'
echo "galleries work beside other sessions, in a hidden schema, and from 0.1.0"
