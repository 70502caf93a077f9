#!/usr/bin/env bash
# What the README does in SQL, done by drivers with parameters, on a private cluster that is removed afterwards.
#
# usage: tests/clients/run.sh            the last line of output counts the drivers
#
# Each driver has a database of its own. It finds the connection in libpq's variables, photos in the folder PHOTOS, and prints
# the number of its calls; it fails unless the same drawing in every form finds the same photos.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${PG_CONFIG:=pg_config}"
export PG_CONFIG

dir=$(mktemp -d "${TMPDIR:-/var/tmp}/pg_sketch-clients.XXXXXX")
chmod 755 "$dir"
trap 'tests/cluster.sh remove "$dir"' EXIT
tests/cluster.sh start "$dir" >/dev/null
export PGHOST=$dir PGUSER=postgres PHOTOS=$dir/photos
python3 tests/clients/photos.py "$PHOTOS"

passed=0 failed=0
client() {
    export PGDATABASE=$1
    "$("$PG_CONFIG" --bindir)/createdb" "$PGDATABASE"
    if calls=$("${@:2}"); then
        echo "$1: $calls"
        passed=$((passed + 1))
    else
        echo "$1: failed"
        failed=$((failed + 1))
    fi
}
client psycopg python3 tests/clients/with_psycopg.py
client asyncpg python3 tests/clients/with_asyncpg.py
client sqlalchemy python3 tests/clients/with_sqlalchemy.py
client node-postgres node tests/clients/node_postgres.js
client tokio-postgres target/release/client-tokio-postgres
echo "clients: $passed passed, $failed failed"
[ "$failed" = 0 ]
