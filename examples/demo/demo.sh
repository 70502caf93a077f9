#!/usr/bin/env bash
# Ranks real photos by drawings inside PostgreSQL, and writes a picture of the result.
#
# usage: examples/demo/demo.sh run       load, embed, rank, write the picture; its path is the last line of output
#        examples/demo/demo.sh load      load and embed only; the connection string is the last line of output
#        examples/demo/demo.sh url       print the connection string of the demo's database
#        examples/demo/demo.sh psql      open that database
#        examples/demo/demo.sh stop      remove the demo with its server, database and photos
#
# DEMO_DIR is the folder of the demo. PHOTOS names a folder of your own photos, which go into a database of their own; SKETCH names
# your own drawings (PNG, JPEG, WebP, SVG, or strokes as JSON), separated by spaces. A later run reuses what an earlier one has
# downloaded, loaded and embedded.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
repository=$(realpath "$here/../..")
cluster=$repository/tests/cluster.sh
trainer=$repository/${TRAINER:-target/release/sketch-trainer}
importer=${trainer%/*}/pg-sketch
psql=$("${PG_CONFIG:-pg_config}" --bindir)/psql
dir=${DEMO_DIR:?DEMO_DIR must name a folder}

fail() {
    echo "demo: $*" >&2
    exit 1
}

# Each folder of photos has its own database; the demo's photos are in "postgres".
database=postgres
if [ -n "${PHOTOS:-}" ]; then
    [ -d "$PHOTOS" ] || fail "PHOTOS=$PHOTOS is not a folder"
    database=photos_$(realpath "$PHOTOS" | cksum | cut -d' ' -f1)
fi

drawings=("$here"/drawings/*.json)
if [ -n "${SKETCH:-}" ]; then
    read -ra drawings <<<"$SKETCH"
    for drawing in "${drawings[@]}"; do
        [ -f "$drawing" ] || fail "SKETCH=$drawing is not a file"
    done
fi

start_server() {
    server=$("$cluster" start "$dir") || fail "the server did not start; \"make demo-stop\" removes what is left of it"
    url=${server/postgresql:\/\/\/postgres/postgresql:\/\/\/$database}
}

# Prints the result of a statement without headings; an error ends the demo.
query() {
    "$psql" --no-psqlrc --quiet --tuples-only --no-align -v ON_ERROR_STOP=1 "$url" -c "$1"
}

step() {
    printf '\n[%3d s] %s\n' "$SECONDS" "$*"
}

load_photos() {
    local photos=${PHOTOS:-$dir/photos}
    if [ -z "${PHOTOS:-}" ] && [ ! -d "$photos" ]; then
        step "fetching photos: Debian's tuxpaint-stamps-default, 160 MB"
        "$here/stamps.sh" "$photos"
    fi
    step "loading photos from $photos"
    query 'SET client_min_messages = warning;
        CREATE TABLE IF NOT EXISTS photo (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, image bytea)'
    # Skips photos that the table already has, by name.
    "$importer" import "$photos" --url "$url" --table photo --image-column image --name-column name
}

embed_photos() {
    step "embedding photos that have no embedding yet"
    [ "$(query "SELECT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = 'photo'::regclass AND tgname = 'sketch_trigger')")" = t ] ||
        query "SELECT sketch_enable('photo', 'image', embed => false)" >/dev/null
    query "CALL sketch_embed_photos('photo')"
    query "SELECT count(embedding) || ' embedded, ' || count(sketch_codebook_id(fused)) || ' fused, of ' || count(*) || ' photos' FROM photo"
}

rank_photos() {
    local picture=$dir/${database/postgres/demo}.jpg
    step "ranking photos by ${#drawings[@]} drawings"
    "$trainer" query --url "$url" --table photo --limit 10 --output "$picture" "${drawings[@]}"
    step "done; \"make psql\" opens the database, \"make demo-stop\" removes it. The picture:"
    echo "$picture"
}

load() {
    step "starting a private PostgreSQL in $dir"
    start_server
    if [ "$database" != postgres ]; then
        exists=$("$psql" -XqtA "$server" -c "SELECT EXISTS (SELECT FROM pg_database WHERE datname = '$database')")
        [ "$exists" = t ] || "$psql" -Xq "$server" -c "CREATE DATABASE $database"
    fi
    query 'SET client_min_messages = warning; CREATE EXTENSION IF NOT EXISTS pg_sketch'
    load_photos
    embed_photos
}

case ${1:-run} in
run)
    load
    rank_photos
    ;;
load)
    load
    echo "$url"
    ;;
url | psql)
    [ -d "$dir/data" ] || fail "there is no demo in $dir; run \"make demo\" first"
    start_server
    if [ "$1" = psql ]; then exec "$psql" "$url"; else echo "$url"; fi
    ;;
stop) "$cluster" remove "$dir" ;;
*) fail "usage: $0 run|load|url|psql|stop" ;;
esac
