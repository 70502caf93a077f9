#!/usr/bin/env bash
# The extension works from a folder that is not the server's, as image volumes have it: library, SQL, ONNX Runtime, network.
#   tests/system/foreign_folder.sh DIR   DIR: a running cluster of tests/cluster.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
bindir=$("$PG_CONFIG" --bindir)
export PGHOST=$1 PGUSER=postgres
psql_in() { "$bindir/psql" -X --quiet --set ON_ERROR_STOP=1 --no-align --tuples-only --dbname "$@"; }

major=$(psql_in postgres -c "SELECT current_setting('server_version_num')::int / 10000")
if [ "$major" -lt 18 ]; then
    echo "PostgreSQL $major finds extensions in its own folder only"
    exit
fi
folder=$1/foreign
mkdir -p "$folder/lib" "$folder/share/extension"
cp -r "$("$PG_CONFIG" --pkglibdir)"/pg_sketch* "$folder/lib/"
cp "$("$PG_CONFIG" --sharedir)"/extension/pg_sketch* "$folder/share/extension/"
chmod -R a+rX "$folder"
psql_in postgres -c "DROP DATABASE IF EXISTS foreign_folder" -c "CREATE DATABASE foreign_folder" \
    -c "ALTER DATABASE foreign_folder SET extension_control_path = '$folder/share'" \
    -c "ALTER DATABASE foreign_folder SET dynamic_library_path = '$folder/lib:\$libdir'" \
    -c "ALTER DATABASE foreign_folder SET pg_sketch.worker = off"
used=$(psql_in foreign_folder -c "CREATE EXTENSION pg_sketch" -c "SELECT sketch_load_model() > 0" \
    -c "SELECT sketch_dimension(sketch_embed('[[[0,99,50],[0,30,80]]]'::jsonb))" \
    -c "SELECT value FROM sketch_status() WHERE name = 'onnxruntime_path'")
psql_in postgres -c "DROP DATABASE foreign_folder"
[ "$used" = "t
512
$folder/lib/pg_sketch/libonnxruntime.so" ] || { echo "expected the files of $folder, got: $used" >&2; exit 1; }
rm -r "$folder"
echo "works from a folder of its own"
