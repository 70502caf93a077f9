# Fused embeddings of as many photos as wanted, and drawings, for benches. To be sourced; needs the functions "sql" and "note", "url" of
# a running server with pg_sketch, and "repository".
# shellcheck shell=bash disable=SC2154
#
#   CACHE         folder for the embeddings and the codebook made from DATA
#   DATA          folder of sketchy-mini, caltech101 and unlabelled; not needed once CACHE is filled

cargo build --quiet --release -p sketch-model --example gallery --manifest-path "$repository/Cargo.toml"
cargo build --quiet --release -p sketch-import --manifest-path "$repository/Cargo.toml"
target=$(cargo metadata --format-version 1 --no-deps --manifest-path "$repository/Cargo.toml" |
    sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
gallery=$target/release/examples/gallery
# The cache depends on the network.
weights=$repository/model/weights/lite2-sketch-2
cache=${CACHE:-$repository/.build/bench}/$(cat "$weights.onnx" "$weights.json" | sha256sum | head -c 8)
mkdir -p "$cache"

# Embeds the images of DATA, once.
fill_cache() {
    local data folder table
    data=$(realpath "${DATA:?DATA must name the folder of the data}")
    note "embedding the photos and sketches of $data"
    sql postgres -c 'CREATE DATABASE embed'
    sql embed -c 'CREATE EXTENSION pg_sketch; SELECT sketch_load_model()' >/dev/null
    for folder in sketchy-mini/photo caltech101 unlabelled sketchy-mini/sketch; do
        table=photo
        [ "$folder" != sketchy-mini/sketch ] || table=sketch
        "$target/release/pg-sketch" import "$data/$folder" --url "${url/\/postgres?//embed?}" \
            --table "$table" --create --image-column image --name-column name --broken skip >&2
    done
    sql embed -c 'SET pg_sketch.threads = 2' -c \
        'COPY (SELECT photo_embed(image) FROM photo ORDER BY name COLLATE "C") TO STDOUT BINARY' >"$cache/photo.new"
    sql embed -c 'SET pg_sketch.threads = 2' -c \
        'COPY (SELECT sketch_embed(image) FROM sketch ORDER BY name COLLATE "C") TO STDOUT BINARY' >"$cache/sketch.new"
    mv "$cache/photo.new" "$cache/photo.copy"
    mv "$cache/sketch.new" "$cache/sketch.copy"
    sql postgres -c 'DROP DATABASE embed'
}
[ -f "$cache/sketch.copy" ] || fill_cache
if [ ! -f "$cache/codebook.json" ]; then
    note "training the codebook"
    "$gallery" codebook "$cache/photo.copy" >"$cache/codebook.new"
    mv "$cache/codebook.new" "$cache/codebook.json"
fi

# make_set SET COUNT SEED: writes rows for COPY.
make_set() {
    case $1 in
    real | photos) "$gallery" "$@" "$cache/photo.copy" "$cache/codebook.json" ;;
    *) "$gallery" "$@" ;;
    esac
}
