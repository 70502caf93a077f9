# Sourced by scripts that count their checks on several clusters: a folder "dir" with one cluster in each of its folders, and what is
# asked of them. The script ends with the counts "passed" and "failed".
: "${PG_CONFIG:=pg_config}"
export PG_CONFIG PGUSER=postgres PGOPTIONS='--client-min-messages=warning'
bindir=$("$PG_CONFIG" --bindir)

# sql CLUSTER ARGUMENTS: psql
sql() { "$bindir/psql" -X --quiet --set ON_ERROR_STOP=1 --set VERBOSITY=terse --no-align --tuples-only --dbname postgres --host "$dir/$1" "${@:2}"; }

passed=0 failed=0
# check NAME STATUS: counts a check, which has passed if the status is 0.
check() {
    if [ "$2" = 0 ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "failed: $1" >&2
    fi
}
# expect NAME PATTERN TEXT
expect() { local found=0; grep -qE "$2" <<<"$3" || found=1; check "$1: $3" "$found"; }
# same NAME: whether the files "expected" and "found" are the same.
same() {
    local difference=0
    diff "$dir/expected" "$dir/found" >"$dir/diff" || difference=1
    check "$1: $(head -8 "$dir/diff")" "$difference"
}
