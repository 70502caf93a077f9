#!/usr/bin/env bash
# The tests that need a server, pg_regress and tests/system, on a private cluster that is removed afterwards.
# PG_CONFIG selects the PostgreSQL.
#   tests/run.sh [NAME...]   runs only these tests of tests/pg_regress; "setup" must come first
set -euo pipefail
cd "$(dirname "$0")/.."
: "${PG_CONFIG:=pg_config}"
export PG_CONFIG

tests=("$@")
[ $# -gt 0 ] || tests=(setup embedding distance embed once codebook hubs gallery background foreign search_path model hostile index objects schema privileges)
regress=$(dirname "$("$PG_CONFIG" --pgxs)")/../test/regress/pg_regress
# pg_regress of the wheel's PostgreSQL 18 crashes at once; that of another version works with the server as well.
"$regress" --version >/dev/null 2>&1 || regress=$(dirname "$(pg_config --pgxs)")/../test/regress/pg_regress
dir=$(mktemp -d "${TMPDIR:-/var/tmp}/pg_sketch-test.XXXXXX")
chmod 755 "$dir"
trap 'tests/cluster.sh remove "$dir"' EXIT
# The environment may add lines to postgresql.conf.
SETTINGS="timezone = 'UTC'
${SETTINGS:-}" tests/cluster.sh start "$dir" >/dev/null

output=${OUTPUT:-$PWD/.build/regress}
rm -rf "$output" && mkdir -p "$output"
export FIXTURES=$PWD/model/tests/fixtures RESULTS=$output PGHOST=$dir PGUSER=postgres PG_ABS_SRCDIR=$PWD/tests/pg_regress
passed=0 failed=0
if "$regress" --inputdir=tests/pg_regress --outputdir="$output" --use-existing --dbname=postgres --host="$dir" \
    --user=postgres --bindir="$("$PG_CONFIG" --bindir)" "${tests[@]}" | tee "$output/log"; then
    :
else
    cat "$output/regression.diffs" >&2 || true
fi
passed=$(grep -cE '^(test .* ok|ok )' "$output/log" || true)
failed=$((${#tests[@]} - passed))

if [ $# -eq 0 ]; then
    for script in tests/system/*.sh; do
        echo "system: $(basename "$script" .sh)"
        if "$script" "$dir"; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
    done
fi
echo "sql: $passed passed, $failed failed"
[ "$failed" = 0 ]
