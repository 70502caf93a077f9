#!/usr/bin/env bash
# Pages of an index that are damaged end in the error "index is damaged" (XX002): whatever a search, an insert, VACUUM
# or sketch_check_index reads from them, no backend ends and no page is added.
#   tests/system/index_damage.sh DIR   makes a cluster of its own, beside DIR
set -euo pipefail
cd "$(dirname "$0")/../.."
bindir=$("$PG_CONFIG" --bindir)
dir=$1-damage
export PGHOST=$dir PGUSER=postgres PGOPTIONS='--client-min-messages=error'
trap 'tests/cluster.sh remove "$dir"' EXIT
sql() { "$bindir/psql" -X --quiet --set VERBOSITY=verbose --no-align --tuples-only --dbname postgres "$@" 2>&1; }
fail() { echo "$*" >&2; exit 1; }

# Kind of page (0: the meta page), offset in it, and what is written there.
damages=("0 6 05" "0 8 ffffffff" "0 8 00000000" "0 12 ffffffff" "0 12 00000000" "0 24 ffffffffffffffff" "0 32 ffffffff" "0 36 ffffffff"
    "1 0 0000" "2 8 ffffffff" "2 8 ffffff00" "2 0 0300" "3 4 ffffffff" "3 8 ffffffff" "3 12 ffff" "3 14 0100" "3 40 ffffffff" "3 0 0500" "5 4 ffffffff")

# A page whose checksum is wrong would never be read.
CHECKSUMS=off tests/cluster.sh start "$dir" >/dev/null
{
    echo 'CREATE EXTENSION pg_sketch;'
    for i in "${!damages[@]}"; do
        echo "CREATE TABLE t$i AS SELECT n, (SELECT array_agg(sin(n * i))::real[]::embedding FROM generate_series(1, 16) AS i) AS e
              FROM generate_series(1, 300) AS n; CREATE INDEX t${i}_e ON t$i USING ivfexact (e) WITH (lists = 1);"
    done
    echo 'CHECKPOINT;'
} | sql
for i in "${!damages[@]}"; do files+=("$dir/data/$(sql -c "SELECT pg_relation_filepath('t${i}_e')")"); done
tests/cluster.sh stop "$dir"
for i in "${!damages[@]}"; do
    # shellcheck disable=SC2086
    python3 - "${files[i]}" ${damages[i]} <<'PY' || fail "no page of kind ${damages[i]}"
import sys
path, kind, at, value = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), bytes.fromhex(sys.argv[4])
header, size = 24, 8192
with open(path, "r+b") as file:
    pages = file.read()
    of_kind = lambda page: int.from_bytes(pages[page * size + header:][:2], "little") == kind
    page = next(page for page in range(len(pages) // size) if (page == 0 if kind == 0 else page > 0 and of_kind(page)))
    file.seek(page * size + header + at)
    file.write(value)
PY
done
tests/cluster.sh start "$dir" >/dev/null

for i in "${!damages[@]}"; do
    found=0
    for statement in \
        "SET enable_seqscan = off; SELECT count(*) FROM (SELECT n FROM t$i ORDER BY e <-> array_fill(0.5::real, ARRAY[16])::embedding LIMIT 400) AS s" \
        "INSERT INTO t$i SELECT n + 1000, e FROM t$i WHERE n <= 10" "DELETE FROM t$i WHERE n % 2 = 0" "VACUUM t$i" \
        "SELECT rows FROM sketch_check_index('t${i}_e')"; do
        said=$(sql -c "$statement" || true)
        case $said in
        *"XX002: index is damaged"*) found=$((found + 1)) ;;
        *ERROR* | *"connection to server"* | *PANIC*) fail "damage ${damages[i]}: $statement: $said" ;;
        esac
    done
    [ "$found" -gt 0 ] || fail "damage ${damages[i]} was not noticed"
done
! grep -E 'PANIC|terminated by signal|TRAP' "$dir/server.log" || fail "a backend has ended"
echo "${#damages[@]} damages are errors"
