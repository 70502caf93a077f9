#!/usr/bin/env bash
# pg_regress with the server under valgrind. Fails at a report of our code; those of ONNX Runtime and of the server itself,
# which is not built for valgrind, do not count.
#   tests/valgrind.sh [NAME...]   the tests of tests/pg_regress to run after "setup"; without names, those that embed few images
set -euo pipefail
cd "$(dirname "$0")/.."
: "${PG_CONFIG:=pg_config}"
export PG_CONFIG
[ $# -gt 0 ] || set -- embedding distance embed codebook index objects schema
logs=$(mktemp -d "${TMPDIR:-/var/tmp}/pg_sketch-valgrind.XXXXXX")
chmod 777 "$logs"
trap 'rm -rf "$logs"' EXIT
# The user who runs the server may not be able to read this folder.
cp tests/valgrind.supp "$logs/known" && chmod 644 "$logs/known"
# pg_ctl starts this in place of the server.
cat >"$logs/postgres" <<SCRIPT
#!/bin/sh
exec valgrind --quiet --trace-children=yes --leak-check=no --num-callers=40 --suppressions=$logs/known --log-file=$logs/%p.log "$("$PG_CONFIG" --bindir)/postgres" "\$@"
SCRIPT
chmod 755 "$logs/postgres"
failed=0
POSTGRES=$logs/postgres PGCTLTIMEOUT=600 OUTPUT=${OUTPUT:-$PWD/.build/regress-valgrind} tests/run.sh setup "$@" || failed=1
# A report is a line without indentation and the frames below it. It is ours if our library is the first of the two in them.
ours=$(cat "$logs"/*.log | awk '
    { sub(/^==[0-9]+== ?/, "") }
    /^$/ { report = ""; next }
    report == "" { report = $0; known = 0; next }
    { report = report "\n" $0 }
    # The dynamic linker reads strings by words.
    !known && /libonnxruntime|_dl_open/ { known = 1 }
    !known && /pg_sketch\.so/ { known = 1; print report "\n" }')
reports=0
if [ -n "$ours" ]; then
    reports=$(($(grep -c '^$' <<<"$ours") + 1)) failed=1
    head -n 100 <<<"$ours" >&2
fi
echo "valgrind: $reports reports of our code in $(ls "$logs"/*.log | wc -l) processes"
exit "$failed"
