#!/usr/bin/env bash
# Imports photos from a folder and a CSV file, with each way to treat broken files, and again without duplicates; then
# evaluates drawings against the table.
#   tests/system/import.sh DIR   DIR: a running cluster of tests/cluster.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
bindir=$("$PG_CONFIG" --bindir)
export PGHOST=$1 PGUSER=postgres PGOPTIONS='--client-min-messages=error'
trainer=target/release/sketch-trainer importer=target/release/pg-sketch
url="host=$PGHOST user=postgres dbname=import"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

sql() { "$bindir/psql" -X --quiet --set ON_ERROR_STOP=1 --no-align --tuples-only --dbname "$@"; }
import() { "$importer" import "$1" --url "$url" --table photo --label-column label --create "${@:2}" 2>&1; }
fail() { echo "$*" >&2; exit 1; }
expect() { [[ $1 == *"$2"* ]] || fail "expected \"$2\" in: $1"; }

mkdir -p "$folder/photos/cup"
cp model/tests/fixtures/{plain.jpg,plain.png,lossy.webp} "$folder/photos/cup/"
head -c 500 model/tests/fixtures/plain.jpg > "$folder/photos/cup/torn.jpg"
printf 'path,label,name\n%s,face,one\n%s,,two\n' "$PWD/model/tests/fixtures/photo.png" photos/cup/plain.png > "$folder/list.csv"

sql postgres -c 'DROP DATABASE IF EXISTS import' -c 'CREATE DATABASE import'
sql import -c 'CREATE EXTENSION pg_sketch'
! refused=$(import "$folder/photos" --broken refuse) || fail "a broken file was not refused"
expect "$refused" '"cup/torn.jpg" is not an image'
expect "$(import "$folder/photos" --broken skip)" '3 photos added, 0 were there already'
expect "$(import "$folder/photos")" '1 photos added, 3 were there already'
expect "$(import "$folder/list.csv")" '2 photos added, 0 were there already'
expect "$(import "$folder/list.csv")" '0 photos added, 2 were there already'
expect "$(import "$folder/photos/cup" 2>&1)" 'added'
labels=$(sql import -c "SELECT string_agg(DISTINCT label, ',' ORDER BY label) FROM photo WHERE name ~ '^(cup/|one|two)'")
[ "$labels" = ,cup,face ] || fail "labels are $labels"

# Evaluation against the table: its mAP must agree with the rank that SQL computes for the face.
sql import -c "DELETE FROM photo WHERE name ~ 'torn|two'" -c "SELECT sketch_enable('photo', 'image')"
mkdir -p "$folder/data/drawn/face" "$folder/data/photos/face"
cp model/tests/fixtures/face.json "$folder/data/drawn/face/"
cat > "$folder/data/data.toml" <<'TOML'
unseen = ["face"]
[[collection]]
name = "drawn"
domain = "sketch"
layout = "folders"
path = "drawn"
TOML
found=$("$trainer" eval --data "$folder/data" --url "$url" --table photo --embedding-column embedding --onnxruntime x \
    --json "$folder/eval.json" --report "$folder/report.html")
rank=$(sql import -c "SELECT rank FROM (SELECT label, rank() OVER (ORDER BY sketch_distance(embedding,
    (pg_read_binary_file('$PWD/model/tests/fixtures/face.json')))) FROM photo WHERE embedding IS NOT NULL) AS ranked WHERE label = 'face'")
# Of one drawing with one photo, the interval is the value.
expect "$found" "$(awk -v rank="$rank" 'BEGIN { value = sprintf("%.1f", 100 / rank); printf "%s %11s", value, value "-" value }')"
grep -q '"photos": ' "$folder/eval.json" || fail "no figures in the JSON"
grep -q '<circle' "$folder/report.html" || fail "no map in the report"
sql postgres -c 'DROP DATABASE import'
echo "imported from folder and CSV; the face's photo is number $rank"
