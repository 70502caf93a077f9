#!/usr/bin/env bash
# Drives the page of examples/draw in Chromium, on a private cluster with the demo's photos that is removed afterwards.
#
# usage: tests/page/run.sh               runs the tests; the last line of output counts them
#        tests/page/run.sh screenshots   writes the pictures of the page in docs/
#
# NAME is a regular expression that selects tests. DEMO_DIR is the folder of the demo, whose photos are downloaded unless they are
# there.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${PG_CONFIG:=pg_config}" "${DEMO_DIR:?DEMO_DIR must name a folder}"
export PG_CONFIG
psql=$("$PG_CONFIG" --bindir)/psql

[ -d "$DEMO_DIR/photos" ] || examples/demo/stamps.sh "$DEMO_DIR/photos"
dir=$(mktemp -d "${TMPDIR:-/var/tmp}/pg_sketch-page.XXXXXX")
chmod 755 "$dir"
trap 'tests/cluster.sh remove "$dir"' EXIT
ln -s "$DEMO_DIR/photos" "$dir/photos"
DEMO_DIR=$dir PHOTOS='' examples/demo/demo.sh load >"$dir/load.log" 2>&1 || { cat "$dir/load.log" >&2; exit 1; }
url=$(tail -n 1 "$dir/load.log")
"$psql" -Xq -v ON_ERROR_STOP=1 "$url" -f examples/draw/role.sql -f tests/page/galleries.sql

export CLUSTER=$dir OWNER=$url READER=${url/user=postgres/user=sketch_draw}
if [ "${1:-}" = screenshots ]; then
    node tests/page/screenshots.js
    exit
fi
node --test --test-reporter=spec ${NAME:+--test-name-pattern="$NAME"} tests/page/*.test.js | tee "$dir/log" || true
passed=$(sed -nE 's/^. pass ([0-9]+)$/\1/p' "$dir/log") failed=$(sed -nE 's/^. fail ([0-9]+)$/\1/p' "$dir/log")
echo "page: ${passed:-0} passed, ${failed:-all} failed"
[ "$failed" = 0 ]
