#!/usr/bin/env bash
# A life of the index "ivfexact": its size while all rows are replaced and vacuumed again and again, and inserts per second of one
# client and of eight, beside pgvector's HNSW if the installation has it.
#
# usage: [N=20000] [ROUNDS=20] [DURATION=10] tests/bench/index_life.sh PG_CONFIG
#
# The rows are those of the set "clustered" of model/examples/gallery.
set -euo pipefail

pg_config=$(realpath "${1:?usage: [N=20000] [ROUNDS=20] [DURATION=10] $0 PG_CONFIG}")
n=${N:-20000} rounds=${ROUNDS:-20} duration=${DURATION:-10}
repository=$(realpath "$(dirname "$0")/../..")
bin=$("$pg_config" --bindir)
export PG_CONFIG=$pg_config
cargo build --quiet --release -p sketch-model --example gallery --manifest-path "$repository/Cargo.toml"
target=$(cargo metadata --format-version 1 --no-deps --manifest-path "$repository/Cargo.toml" |
    sed 's/.*"target_directory":"\([^"]*\)".*/\1/')

dir=$(mktemp -d /var/tmp/pg_sketch-life.XXXXXX)
chmod 755 "$dir"
trap '"$repository/tests/cluster.sh" remove "$dir"' EXIT
url=$(SETTINGS="
shared_buffers = 1GB
maintenance_work_mem = 1GB
autovacuum = off" "$repository/tests/cluster.sh" start "$dir")
on() { "$bin/psql" --no-psqlrc --quiet --tuples-only --no-align --variable ON_ERROR_STOP=1 "$url" "$@"; }
megabytes() { on -c "SELECT round(pg_relation_size('$1') / 1e6, 1)"; }

on -c 'CREATE EXTENSION pg_sketch' -c 'CREATE TABLE photo (id bigint, fused embedding)'
"$target/release/examples/gallery" clustered "$n" 1 | on -c 'COPY photo FROM STDIN BINARY'
on -c 'CREATE INDEX nearest ON photo USING ivfexact (fused)' -c 'VACUUM ANALYZE photo'
fresh=$(megabytes nearest)
echo "$n rows: index $fresh MB, table $(megabytes photo) MB"
for round in $(seq "$rounds"); do
    on -c 'UPDATE photo SET fused = fused' -c 'VACUUM photo'
    [ $((round % 5)) != 0 ] && [ "$round" != 1 ] ||
        echo "after $round times (update all, vacuum): index $(megabytes nearest) MB, table $(megabytes photo) MB"
done
on -c "SELECT sketch_check_index('nearest')" >/dev/null
awk -v fresh="$fresh" -v now="$(megabytes nearest)" 'BEGIN { printf "%.2f times the size of a fresh index\n", now / fresh }'

# inserts LABEL CLIENTS: prints inserts per second into the table new.
inserts() {
    local rate
    rate=$("$bin/pgbench" --no-vacuum --client "$2" --jobs 2 --time "$duration" --file - "$url" <<SQL | sed -n 's/^tps = \([0-9.]*\).*/\1/p'
\set id random(1, $n)
INSERT INTO new SELECT fused FROM photo WHERE id = :id;
SQL
)
    echo "$1, $2 clients: $rate inserts/s"
}
on -c 'CREATE INDEX ON photo (id)' -c 'SET client_min_messages = warning' -c 'CREATE TABLE new AS SELECT fused FROM photo' \
    -c 'CREATE INDEX new_nearest ON new USING ivfexact (fused)'
for clients in 1 8; do inserts ivfexact "$clients"; done
if [ "$(on -c "SELECT count(*) FROM pg_available_extensions WHERE name = 'vector'")" = 1 ]; then
    on -c 'CREATE EXTENSION vector' -c 'DROP TABLE new' -c 'DROP INDEX nearest' \
        -c 'ALTER TABLE photo ALTER fused TYPE halfvec(512) USING fused::real[]::halfvec' -c 'CREATE TABLE new AS SELECT fused FROM photo' \
        -c 'CREATE INDEX new_nearest ON new USING hnsw (fused halfvec_l2_ops)'
    for clients in 1 8; do inserts hnsw "$clients"; done
fi
