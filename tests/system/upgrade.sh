#!/usr/bin/env bash
# ALTER EXTENSION ... UPDATE from every released version ends with the catalogue of a fresh installation.
# "make test-upgrade" runs the old library, too.
#   tests/system/upgrade.sh DIR   DIR: a running cluster of tests/cluster.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
bindir=$("$PG_CONFIG" --bindir)
export PGHOST=$1 PGUSER=postgres PGOPTIONS='--client-min-messages=warning'
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

psql_in() { "$bindir/psql" -X --quiet --set ON_ERROR_STOP=1 --no-align --tuples-only --dbname "$@"; }
new_database() { psql_in postgres -c "DROP DATABASE IF EXISTS $1" -c "CREATE DATABASE $1"; }

new_database fresh
psql_in fresh -c "CREATE EXTENSION pg_sketch"
psql_in fresh -f tests/upgrade/catalog.sql >"$work/fresh"

versions=$(sed -nE 's/.* pg_sketch--([0-9.]+)\.sql$/\1/p' sql/released.sha256)
for version in $versions; do
    new_database updated
    psql_in updated -c "CREATE EXTENSION pg_sketch VERSION '$version'" -c "ALTER EXTENSION pg_sketch UPDATE"
    psql_in updated -f tests/upgrade/catalog.sql >"$work/updated"
    diff "$work/fresh" "$work/updated" >"$work/diff" || {
        echo "after an update from $version (>), the catalogue is not that of a fresh installation (<):" >&2
        cat "$work/diff" >&2
        exit 1
    }
    echo "update from $version: $(wc -l <"$work/fresh") properties of $(psql_in fresh -c '\dx+ pg_sketch' | grep -c .) objects as in a fresh installation"
done
for database in fresh updated; do psql_in postgres -c "DROP DATABASE $database"; done
