#!/usr/bin/env bash
# A gallery that grows from 100 photos to 10,000 while nobody calls anything, beside one that was built whole: how often is a
# right photo among the first ten (found@10)? Fails if the grown one is more than a point behind.
#
# usage: DATA=folder [PHOTOS=10000] [OTHERS=N] tests/bench/growth.sh
#
# DATA holds classes.tsv, sketchy-mini/{photo,sketch}/<class>/, caltech101/ and unlabelled/. Queries are the sketches of the classes
# "val", among the photos of these classes and OTHERS of the other sets, by default all; mixtures of two of those fill up what lacks
# to PHOTOS. Each photo is embedded once, and both galleries take the embeddings along, so that only codebooks and fused embeddings differ.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
repository=$(realpath "$here/../..")
importer=$repository/target/release/pg-sketch
bindir=$("${PG_CONFIG:-pg_config}" --bindir)
data=$(realpath "${DATA:?DATA must name the folder of the data}")
photos=${PHOTOS:-10000}
dir=$(mktemp -d /var/tmp/pg_sketch-bench.XXXXXX)
trap '"$repository/tests/cluster.sh" remove "$dir"' EXIT
chmod 755 "$dir"
url=$(SETTINGS="shared_preload_libraries = 'pg_sketch'
shared_buffers = 512MB" "$repository/tests/cluster.sh" start "$dir")
export PGHOST=$dir PGUSER=postgres PGDATABASE=postgres PGOPTIONS='--client-min-messages=warning'
sql() { "$bindir/psql" -X -qAt --set ON_ERROR_STOP=1 "$@"; }

mkdir "$dir/sketch" "$dir/photo"
awk -F'\t' '$2 == "val" { print $1 }' "$data/classes.tsv" | while read -r class; do
    cp -r "$data/sketchy-mini/sketch/$class" "$dir/sketch/"
done
mkdir "$dir/photo/val"
awk -F'\t' '$2 == "val" { print $1 }' "$data/classes.tsv" | while read -r class; do
    cp -r "$data/sketchy-mini/photo/$class" "$dir/photo/val/"
done
for set in unlabelled caltech101; do cp -r "$data/$set" "$dir/photo/$set"; done
if [ -n "${OTHERS:-}" ]; then find "$dir/photo/unlabelled" "$dir/photo/caltech101" -type f | sort -r | awk -v n="$OTHERS" 'NR > n' | xargs -r rm; fi
sql -c 'CREATE EXTENSION pg_sketch' -c 'SELECT sketch_load_model()' >/dev/null
"$importer" import "$dir/photo" --url "$url" --table source --label-column label --create >/dev/null
"$importer" import "$dir/sketch" --url "$url" --table sketch --label-column label --create >/dev/null
sql >/dev/null <<SQL
CREATE FUNCTION unit(e embedding) RETURNS embedding LANGUAGE sql AS \$\$
    WITH part AS (SELECT split_part(e::text, '@', 1) AS list, split_part(e::text, '@', 2) AS model),
        channel AS (SELECT x::float8, n FROM part, unnest(string_to_array(trim(list, '[]'), ',')) WITH ORDINALITY AS channel (x, n))
    SELECT format('[%s]@%s', (SELECT string_agg((x / length)::text, ',' ORDER BY n) FROM channel, (SELECT sqrt(sum(x * x)) AS length FROM channel) AS whole), model)::embedding
    FROM part
\$\$;
CREATE TABLE query AS SELECT label, sketch_embed(image) AS e FROM sketch;
CREATE TABLE embedded AS SELECT name, label, photo_embed(image) AS embedding FROM source;
WITH other AS (SELECT *, row_number() OVER (ORDER BY md5(name)) AS r, count(*) OVER () AS n FROM embedded WHERE name NOT LIKE 'val/%')
INSERT INTO embedded (name, label, embedding)
SELECT 'mixture ' || a.r || ' ' || k, 'none', unit((SELECT avg(v.e) FROM (VALUES (a.embedding), (a.embedding), (b.embedding)) AS v (e)))
FROM other AS a, generate_series(1, 20) AS k JOIN LATERAL (SELECT embedding FROM other WHERE r = 1 + (a.r * 7 + k * 31) % a.n) AS b ON true
ORDER BY k, a.r LIMIT greatest($photos - (SELECT count(*) FROM embedded), 0);
CREATE TABLE shuffled AS SELECT row_number() OVER (ORDER BY md5(name)) AS id, name, label, embedding FROM embedded LIMIT $photos;
CREATE TABLE grown (id int PRIMARY KEY, name text, label text, image bytea);
CREATE TABLE whole (LIKE grown INCLUDING ALL);
SELECT sketch_enable('grown', 'image', mode => 'background');
SELECT sketch_enable('whole', 'image');
SQL
photos=$(sql -c 'SELECT count(*) FROM shuffled')
insert() { sql -c "INSERT INTO $1 (id, name, label, image, embedding) SELECT id, name, label, '', embedding FROM shuffled WHERE id > $2 AND id <= $3"; }
# found TABLE COLUMN: percentage of queries with a photo of their class among the first ten.
found() {
    sql -c "SELECT round(100 * avg((EXISTS (SELECT FROM (SELECT label FROM $1 ORDER BY $2 <-> q.e LIMIT 10) AS ten WHERE ten.label = q.label))::int), 1) FROM query AS q"
}
count=0 began=$SECONDS
while [ "$count" -lt "$photos" ]; do
    next=$((count + (count < 1000 ? 100 : 500)))
    insert grown "$count" "$next"
    count=$next
    # Some seconds of life between imports, as the worker sees them.
    sleep "${PAUSE:-1}"
done
# Until nothing changes any more: everything is fused with one codebook, there is an index if it pays, and the worker has left.
for _ in $(seq 600); do
    state=$(sql -c "SELECT photos = fused AND pending = 0 AND (photos < 10000 OR index IS NOT NULL), (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_sketch background worker') FROM sketch_gallery_status('grown')")
    [ "$state" != 't|0' ] || break
    sleep 0.5
done
[ "$state" = 't|0' ] || { echo "the gallery is not settled: $state" >&2; exit 1; }
insert whole 0 "$photos"
sql -c "CALL sketch_embed_photos('whole')" >/dev/null 2>&1
sql -c "SELECT format('grown in %s s, codebooks: %s; %s photos, %s fused, drift %s, index %s', $((SECONDS - began)), (SELECT count(*) FROM sketch.codebook_name WHERE name = 'public.grown'), photos, fused, round(drift::numeric, 3), index) FROM sketch_gallery_status('grown')"
grown=$(found grown fused) whole=$(found whole fused)
echo "found@10: grown $grown %, built whole $whole %, by embeddings alone $(found whole embedding) %"
awk -v grown="$grown" -v whole="$whole" 'BEGIN { exit grown < whole - 1 }' || { echo "the grown gallery is more than a point behind" >&2; exit 1; }
