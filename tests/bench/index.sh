#!/usr/bin/env bash
# Measures the index "ivfexact" beside pgvector's HNSW in one cluster, and prints figures and ratios.
#
# usage: [N=100000,1000000] [KEEP=folder] [INDEXES="ivfexact hnsw"] tests/bench/index.sh PG_CONFIG
#        EXACT=10000 [N=20000] [KEEP=folder] tests/bench/index.sh PG_CONFIG
#
# The second form only counts answers of the index that differ from the sequential scan's, over EXACT queries to each of several
# sets of N rows. The installation of PG_CONFIG must have pg_sketch and pgvector.
#
#   QUERIES=200   queries whose answers are compared
#   DURATION=10   seconds per run of pgbench
#   ROUNDS=3      runs of pgbench of each kind, alternating; the median counts
#   KEEP          folder to keep the cluster in; the next run reuses its tables and HNSW, and builds ivfexact again
#   INDEXES       indexes to measure
#   VCHORD=1      measures VectorChord's vchordrq, too, which the server must have
#   TRIALS=       leaves out two clients, WHERE, a large LIMIT and cursors
#   CACHE, DATA   as in photos.sh
#
# The photos are those of DATA and synthetic ones derived from them by model/examples/gallery; the queries are the sketches of
# DATA. One million rows need 12 GB of memory and 8 GB of disk.
set -euo pipefail

pg_config=$(realpath "${1:?usage: [N=100000,1000000] [KEEP=folder] $0 PG_CONFIG}")
queries=${QUERIES:-200} duration=${DURATION:-10} rounds=${ROUNDS:-3} indexes=${INDEXES:-ivfexact hnsw${VCHORD:+ vchordrq}} exact=${EXACT:-}
if [ -n "$exact" ]; then sizes=${N:-20000}; else sizes=${N:-100000,1000000}; fi
here=$(cd "$(dirname "$0")" && pwd)
repository=$(realpath "$here/../..")
bin=$("$pg_config" --bindir)
export PG_CONFIG=$pg_config

dir=${KEEP:-$(mktemp -d /var/tmp/pg_sketch-index.XXXXXX)}
clean_up() {
    if [ -n "${KEEP:-}" ]; then "$repository/tests/cluster.sh" stop "$dir"; else "$repository/tests/cluster.sh" remove "$dir"; fi
}
trap clean_up EXIT
mkdir -p "$dir"
chmod 755 "$dir"

# Buffers for two tables and two indexes. A sequential scan bypasses the buffers if its table is larger than a quarter of them.
largest=$(tr , '\n' <<<"$sizes" | sort -n | tail -1)
url=$(SETTINGS="
shared_buffers = $((largest / 7 * 8 / 1024 * 6 + 512))MB
maintenance_work_mem = 4GB
max_parallel_maintenance_workers = 2
max_parallel_workers_per_gather = 0
jit = off
synchronize_seqscans = off
autovacuum = off
wal_level = minimal
max_wal_senders = 0
${VCHORD:+shared_preload_libraries = vchord}
max_wal_size = 16GB" "$repository/tests/cluster.sh" start "$dir")

# sql DATABASE ARGUMENT...
sql() {
    "$bin/psql" --no-psqlrc --quiet --tuples-only --no-align --field-separator ' ' \
        --variable ON_ERROR_STOP=1 "${url/\/postgres?//$1?}" "${@:2}"
}
note() { echo "$(date +%T) $*" >&2; }
has() { [[ " $indexes " == *" $1 "* ]]; }

# shellcheck source=tests/bench/photos.sh
. "$here/photos.sh"
if [ -n "$exact" ]; then
    . "$here/index_exact.sh"
else
    . "$here/median.sh"
    . "$here/index_speed.sh"
fi
