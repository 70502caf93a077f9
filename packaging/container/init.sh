#!/usr/bin/env bash
# Runs once, when the container's database is new: creates the extension and, if PG_SKETCH_PHOTOS names a folder, the table
# "photo" of what is in it, which drawings search. With SKETCH_DRAW_PASSWORD, the role of the drawing page may read it.
set -euo pipefail
run() { psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "${POSTGRES_DB:-$POSTGRES_USER}" "$@"; }

run -c "CREATE EXTENSION IF NOT EXISTS pg_sketch"
[ -n "${PG_SKETCH_PHOTOS:-}" ] || exit 0

run -c "CREATE TABLE photo (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, image bytea)"
# Control characters that no file name has stand for delimiter and quote.
names="COPY photo (name) FROM STDIN (FORMAT csv, DELIMITER E'\x01', QUOTE E'\x02')"
find "$PG_SKETCH_PHOTOS" -type f \( -iname '*.png' -o -iname '*.jpg' -o -iname '*.jpeg' -o -iname '*.webp' \) -printf '%P\n' | sort |
    run -c "$names"
run --set folder="$PG_SKETCH_PHOTOS" <<'SQL'
UPDATE photo SET image = pg_read_binary_file(:'folder' || '/' || name);
SELECT sketch_enable('photo', 'image', embed => false);
CALL sketch_embed_photos('photo');
SQL
[ -n "${SKETCH_DRAW_PASSWORD:-}" ] || exit 0
run -f "${SKETCH_DRAW_ROLE:-/usr/local/share/pg_sketch/draw_role.sql}"
run --set password="$SKETCH_DRAW_PASSWORD" <<<"ALTER ROLE sketch_draw PASSWORD :'password'"
