#!/usr/bin/env bash
# Serves the page on which a drawing finds the demo's photos.
#
# usage: examples/draw/draw.sh run       load the photos if necessary, serve the page; its address is the last line of output
#        examples/draw/draw.sh url       print the address of the page that "run" serves
#
# DEMO_DIR is the folder of the demo, and PHOTOS names a folder of your own photos, as for examples/demo/demo.sh.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
repository=$(realpath "$here/../..")
server=$repository/${DRAW:-target/release/sketch-draw}
psql=$("${PG_CONFIG:-pg_config}" --bindir)/psql
address_file=${DEMO_DIR:?DEMO_DIR must name a folder}/draw.url

run() {
    mkdir -p "$DEMO_DIR"
    "$here/../demo/demo.sh" load | tee "$DEMO_DIR/load.log"
    url=$(tail -n 1 "$DEMO_DIR/load.log")
    "$psql" --no-psqlrc --quiet -v ON_ERROR_STOP=1 "$url" -f "$here/role.sql"
    echo "The page; Ctrl+C stops it:"
    exec "$server" --url "${url/user=postgres/user=sketch_draw}" --address-file "$address_file"
}

url() {
    local page port
    page=$(cat "$address_file" 2>/dev/null) || page=
    port=${page##*:}
    # A server that was killed leaves the file behind.
    if [ -z "$page" ] || ! (exec 3<>"/dev/tcp/127.0.0.1/${port%/}") 2>/dev/null; then
        echo "draw: the page is not being served; run \"make draw\" first" >&2
        exit 1
    fi
    echo "$page"
}

case ${1:-run} in
run) run ;;
url) url ;;
*)
    echo "usage: $0 run|url" >&2
    exit 2
    ;;
esac
