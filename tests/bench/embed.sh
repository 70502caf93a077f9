#!/usr/bin/env bash
# Embeds the same photos in SQL and with ONNX Runtime in Python, alternating, and prints photos per second and their ratio:
# photos as they are, and made as large as those of a camera.
#
# usage: PHOTOS=folder [ROUNDS=5] [LIMIT=200] [SIZES="0x0 1280x960 4000x3000"] [MODEL=file.onnx] tests/bench/embed.sh
#
# Python needs the packages onnxruntime, numpy and pillow. It also reads and resizes the photos, large ones by Pillow's "draft",
# and the faster of its batch sizes 1 and 8 counts. Both run the server's current model on the same number of threads; MODEL names
# another, with its manifest beside it. Of larger photos there are half as many, and a quarter.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
repository=$(realpath "$here/../..")
# shellcheck source=tests/bench/median.sh
. "$here/median.sh"
importer=$repository/target/release/pg-sketch
psql=$("${PG_CONFIG:-pg_config}" --bindir)/psql
photos=$(realpath "${PHOTOS:?PHOTOS must name a folder of photos}")
rounds=${ROUNDS:-5} limit=${LIMIT:-200} sizes=${SIZES:-0x0 1280x960 4000x3000}

dir=$(mktemp -d /var/tmp/pg_sketch-bench.XXXXXX)
trap '"$repository/tests/cluster.sh" remove "$dir"' EXIT
chmod 755 "$dir"
url=$("$repository/tests/cluster.sh" start "$dir")
sql() { "$psql" --no-psqlrc --quiet --tuples-only --no-align -v ON_ERROR_STOP=1 "$url" "$@"; }

# Selects the same photos of the folder in every run.
mkdir "$dir/photos"
number=0
while IFS= read -r photo; do
    number=$((number + 1))
    cp "$photo" "$dir/photos/$number.${photo##*.}"
done < <(find "$photos" -type f -iregex '.*\.\(png\|jpe?g\|webp\)' | sort | shuf --random-source=<(yes) | head -n "$limit")

sql -c 'CREATE EXTENSION pg_sketch'
if [ -n "${MODEL:-}" ]; then
    cp "$MODEL" "$dir/given.onnx" && cp "${MODEL%.onnx}.json" "$dir/given.json" && chmod a+r "$dir"/given.*
    sql -c "SELECT sketch_load_model('given', pg_read_binary_file('$dir/given.onnx'), pg_read_file('$dir/given.json')::jsonb)" >/dev/null
else
    sql -c 'SELECT sketch_load_model()' >/dev/null
fi
sql -c "SELECT encode(onnx, 'base64') FROM sketch.model WHERE model_id = sketch_current_model()" | base64 -d >"$dir/model.onnx"
sql -c "SELECT manifest FROM sketch.model WHERE model_id = sketch_current_model()" >"$dir/model.json"

# Prints "sql RATE" and "procedure RATE". Before the clock starts, a warm-up loads the network, and has it grow to a runner for
# each core.
by_sql() {
    sql 2>/dev/null <<SQL
SET pg_sketch.threads = $1;
-- The trigger would embed again what is emptied.
SET session_replication_role = replica;
UPDATE photo SET embedding = NULL, fused = NULL;
CALL sketch_embed_photos('photo');
UPDATE photo SET embedding = NULL, fused = NULL;
RESET session_replication_role;
SELECT clock_timestamp() AS started \gset
SELECT count(photo_embed(image)) AS photos FROM photo \gset
SELECT 'sql ' || :photos / extract(epoch FROM clock_timestamp() - :'started');
SELECT clock_timestamp() AS started \gset
CALL sketch_embed_photos('photo');
SELECT 'procedure ' || :photos / extract(epoch FROM clock_timestamp() - :'started');
SQL
}

part=1
for size in $sizes; do
    photos=$dir/photos
    if [ "$size" != 0x0 ]; then
        part=$((part * 2)) photos=$dir/$size
        python3 "$here/enlarge.py" "$dir/photos" "$photos" "${size%x*}" "${size#*x}" $((limit / part))
    fi
    sql -c 'DROP TABLE IF EXISTS photo' -c 'CREATE TABLE photo (name text, image bytea)' 2>/dev/null
    "$importer" import "$photos" --url "$url" --table photo --image-column image --name-column name >&2
    sql -c "SELECT sketch_enable('photo', 'image', embed => false)" >/dev/null
    for threads in 1 2; do
        for round in $(seq "$rounds"); do
            by_sql "$threads"
            python3 "$here/embed.py" "$dir" "$photos" "$threads"
            echo "$size, threads $threads: round $round of $rounds" >&2
        done >"$dir/rates"
        awk -v size="${size/#0x0/as they are}" -v threads="$threads" -v batch1="$(median_of batch1 "$dir/rates")" -v batch8="$(median_of batch8 "$dir/rates")" \
            -v sql="$(median_of sql "$dir/rates")" -v procedure="$(median_of procedure "$dir/rates")" 'BEGIN {
                best = batch1 > batch8 ? batch1 : batch8
                printf "%s, threads %d: photo_embed %.1f, sketch_embed_photos %.1f, Python batch 1 %.1f, batch 8 %.1f photos/s\n",
                    size, threads, sql, procedure, batch1, batch8
                printf "ratio %.2f photo_embed, %.2f sketch_embed_photos (pg_sketch / the better batch of Python; above 1 is faster)\n",
                    sql / best, procedure / best
            }
        '
    done
done
