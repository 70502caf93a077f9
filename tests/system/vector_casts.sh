#!/usr/bin/env bash
# Casts to and from the types of pgvector, where the server has it; where it has not, the error that says so.
#   tests/system/vector_casts.sh DIR   DIR: a running cluster of tests/cluster.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
bindir=$("$PG_CONFIG" --bindir)
export PGHOST=$1 PGUSER=postgres PGOPTIONS='--client-min-messages=warning'

sql() { "$bindir/psql" -X --quiet --set ON_ERROR_STOP=1 --no-align --tuples-only --dbname "$@"; }
fail() { echo "$*" >&2; exit 1; }

sql postgres -c 'DROP DATABASE IF EXISTS casts' -c 'DROP DATABASE IF EXISTS restored' -c 'CREATE DATABASE casts'
sql casts -c 'CREATE SCHEMA "a b"' -c 'CREATE SCHEMA "c d"' -c 'CREATE EXTENSION pg_sketch SCHEMA "a b"'
! refused=$(sql casts -c 'SELECT "a b".sketch_create_vector_casts()' 2>&1) || fail "casts without pgvector"
[[ $refused == *'extension "vector" is not installed'*'CREATE EXTENSION vector'* ]] || fail "$refused"
if [ "$(sql casts -c "SELECT count(*) FROM pg_available_extensions WHERE name = 'vector'")" = 0 ]; then
    sql postgres -c 'DROP DATABASE casts'
    echo "casts to the types of pgvector: refused, because this server has no pgvector"
    exit
fi
sql casts -c 'CREATE EXTENSION vector SCHEMA "c d"' -c 'SELECT "a b".sketch_create_vector_casts()' \
    -c 'CREATE TABLE "a b".t AS SELECT ARRAY[1, -2.5, 0.25]::real[]::"a b".embedding AS e' >/dev/null
cast=$(cat <<'SQL'
SET search_path = "a b", "c d";
SELECT e::vector, e::halfvec, e::vector(3), (e::vector)::embedding <-> e, (e::halfvec)::embedding <-> e, e::vector <=> e::vector < 1e-6 FROM t;
SQL
)
expected='[1,-2.5,0.25]|[1,-2.5,0.25]|[1,-2.5,0.25]|0|0|t'
found=$(sql casts <<<"$cast")
[ "$found" = "$expected" ] || fail "casts: $found"
# A dump has them, and either extension can go.
sql postgres -c 'CREATE DATABASE restored'
"$bindir/pg_dump" casts | sql restored >/dev/null
[ "$(sql restored <<<"$cast")" = "$expected" ] || fail "the casts were not restored"
sql restored -c 'DROP EXTENSION vector CASCADE' -c "SELECT '[1]'::\"a b\".embedding" >/dev/null
sql casts -c 'DROP EXTENSION pg_sketch CASCADE' -c "SELECT '[1]'::\"c d\".vector" >/dev/null
sql postgres -c 'DROP DATABASE casts' -c 'DROP DATABASE restored'
echo "casts to vector and halfvec and back, also after dump and restore"
