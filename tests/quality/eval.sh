#!/usr/bin/env bash
# Measures in SQL how well drawings find photos of classes that training has not seen, as a gallery serves them by default:
# by its embeddings, and by what it stores to be compared with drawings. First among the photos of these classes alone, then
# among 1,000 others besides.
#
# usage: DATA=folder [CODEBOOK="subspaces => 2, weight => 0.2, unit_length => false, hubs => 0"] tests/quality/eval.sh
#
# DATA holds classes.tsv, sketchy-mini/{photo,sketch}/<class>/, quickdraw/<class>.ndjson and unlabelled/. The gallery consists of
# the photos of the "val" classes. The queries of the set "val" are the sketches of these classes, those of "val-doodle" the
# QuickDraw drawings, where a class has some. CODEBOOK overrides the defaults of sketch_build_codebook.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
repository=$(realpath "$here/../..")
trainer=$repository/target/release/sketch-trainer
importer=$repository/target/release/pg-sketch
psql=$("${PG_CONFIG:-pg_config}" --bindir)/psql
data=$(realpath "${DATA:?DATA must name the folder of the data}")
[ -f "$data/classes.tsv" ] || { echo "$0: there is no classes.tsv in $data" >&2; exit 1; }

dir=$(mktemp -d /var/tmp/pg_sketch-eval.XXXXXX)
trap '"$repository/tests/cluster.sh" remove "$dir"' EXIT
chmod 755 "$dir"
url=$("$repository/tests/cluster.sh" start "$dir")
sql() { "$psql" --no-psqlrc --quiet --tuples-only --no-align -v ON_ERROR_STOP=1 "$url" "$@"; }
import() { "$importer" import "$1" --url "$url" --table photo --image-column image --name-column name --label-column label >/dev/null; }

# Ranks all photos that have a class or none, which is the class ''.
rank() {
    sql -c "SET client_min_messages = warning" -c "SELECT sketch_build_codebook('public.photo', 'photo' ${CODEBOOK:+, $CODEBOOK})" \
        -c "SELECT sketch_fuse_photos('photo')" >/dev/null
    sql -c "SELECT format('codebook: %s subspaces, %s prototypes, weight %s, unit length %s, hubs %s', subspaces, prototypes, weight, unit_length, hubs)
            FROM sketch.codebook WHERE codebook_id = sketch_current_codebook('public.photo')"
    "$trainer" eval --data "$data" --url "$url" --table photo --name-column name
}

sql -c "SET client_min_messages = warning" -c "CREATE EXTENSION pg_sketch" \
    -c "CREATE TABLE photo (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, label text NOT NULL, name text, image bytea)" \
    -c "SELECT sketch_enable('photo', 'image', embed => false)" >/dev/null
mkdir "$dir/photo"
awk -F'\t' '$2 == "val" { print $1 }' "$data/classes.tsv" | while read -r class; do
    cp -r "$data/sketchy-mini/photo/$class" "$dir/photo/"
done
import "$dir/photo"
rank
if [ -d "$data/unlabelled" ]; then
    import "$data/unlabelled"
    rank
fi
