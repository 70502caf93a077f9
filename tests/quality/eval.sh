#!/usr/bin/env bash
# Measures in SQL how well drawings find photos of classes that training has not seen: mAP@all, P@25, found@10.
#
# usage: DATA=folder [CODEBOOK="subspaces => 4, prototypes => 32, weight => 0.5"] [RUNS=5] tests/quality/eval.sh
#
# DATA holds classes.tsv, sketchy-mini/{photo,sketch}/<class>/ and quickdraw/<class>.ndjson. The gallery consists of the photos
# of the "val" classes. The queries of the set "val" are the sketches of these classes, those of "val-doodle" the QuickDraw
# drawings, where a class has some. CODEBOOK overrides the defaults of sketch_build_codebook. Figures of fused embeddings are means
# over RUNS codebooks.
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
sql() { "$psql" --no-psqlrc --quiet -v ON_ERROR_STOP=1 "$@" "$url"; }

sql <<'SQL'
CREATE EXTENSION pg_sketch;
CREATE TABLE photo (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, label text, name text, image bytea);
CREATE TABLE sketch (label text, name text, image bytea);
CREATE TABLE doodle (label text, line jsonb);
SQL

# Prints the classes of the split with their QuickDraw names.
classes() { awk -F'\t' '$2 == "val" { print $1 "\t" $3 }' "$data/classes.tsv"; }

mkdir "$dir/photo" "$dir/sketch"
while IFS=$'\t' read -r class _; do
    for domain in photo sketch; do
        cp -r "$data/sketchy-mini/$domain/$class" "$dir/$domain/"
    done
done < <(classes)
for domain in photo sketch; do
    "$importer" import "$dir/$domain" --url "$url" --table "$domain" --image-column image --name-column name --label-column label
done
while IFS=$'\t' read -r class doodle; do
    # To COPY, a backslash is an escape.
    [ -z "$doodle" ] || sed -e 's/\\/\\\\/g' -e "s/^/$class\t/" "$data/quickdraw/$doodle.ndjson"
done < <(classes) | sql -c 'COPY doodle FROM STDIN'

sql -v codebook="${CODEBOOK:+, $CODEBOOK}" -v runs="${RUNS:-5}" -f "$here/eval.sql"
