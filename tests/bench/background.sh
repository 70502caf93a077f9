#!/usr/bin/env bash
# What the mode "background" costs writers: 1,000 photos inserted by 8 clients, beside a table without the extension, in turns.
# Prints the latency of an INSERT (p50 and p95) of both, their ratio, and how long it takes until all photos are embedded. Before
# each, it waits until the worker has nothing to do, maintenance included.
#
# usage: DATA=folder [ROUNDS=5] [RATE=N] tests/bench/background.sh
#
# DATA holds sketchy-mini/photo/. RATE limits the inserts per second, so that they go on while the worker embeds.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/bench/median.sh
. "$here/median.sh"
repository=$(realpath "$here/../..")
bindir=$("${PG_CONFIG:-pg_config}" --bindir)
data=$(realpath "${DATA:?DATA must name the folder of the data}")
dir=$(mktemp -d /var/tmp/pg_sketch-bench.XXXXXX)
trap '"$repository/tests/cluster.sh" remove "$dir"' EXIT
chmod 755 "$dir"
SETTINGS="shared_preload_libraries = 'pg_sketch'
fsync = on
shared_buffers = 512MB" "$repository/tests/cluster.sh" start "$dir" >/dev/null
export PGHOST=$dir PGUSER=postgres PGDATABASE=postgres PGOPTIONS='--client-min-messages=warning'
sql() { "$bindir/psql" -X -qAt --set ON_ERROR_STOP=1 "$@"; }

sql -c 'CREATE EXTENSION pg_sketch' -c 'CREATE TABLE source (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, image bytea)' \
    -c 'ALTER TABLE source ALTER image SET STORAGE EXTERNAL'
find "$data/sketchy-mini/photo" -name '*.jpg' | sort | awk 'NR <= 400' | while read -r file; do
    printf '\\\\x%s\n' "$(od -An -v -tx1 "$file" | tr -d ' \n')"
done | sql -c 'COPY source (image) FROM STDIN'
for table in plain photo; do
    sql -c "CREATE TABLE $table (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, image bytea)" \
        -c "ALTER TABLE $table ALTER image SET STORAGE EXTERNAL"
    printf '\\set n random(1, 400)\nINSERT INTO %s (image) SELECT image FROM source WHERE id = :n;\n' $table >"$dir/$table.sql"
done
sql -c "SELECT sketch_enable('photo', 'image', mode => 'background')" >/dev/null

# run TABLE: inserts, and prints p50 and p95 in milliseconds.
run() {
    rm -f "$dir"/log.*
    (cd "$dir" && "$bindir/pgbench" --no-vacuum --client=8 --jobs=2 --transactions=125 ${RATE:+--rate=$RATE} --file="$dir/$1.sql" --log --log-prefix="$dir/log" >/dev/null 2>&1)
    cat "$dir"/log.* | awk '{ print $3 }' | sort -n | awk '{ a[NR] = $1 } END { printf "%.2f %.2f\n", a[int(NR * 0.5)] / 1000, a[int(NR * 0.95)] / 1000 }'
}
# Waits until the worker has left.
settle() {
    until [ "$(sql -c "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_sketch background worker'")" = 0 ]; do
        sleep 0.1
    done
}
# Warm up: the network is loaded, and the table has photos.
run photo >/dev/null && sql -c "SELECT sketch_wait('photo', '10 min')" >/dev/null
: >"$dir/figures"
for round in $(seq "${ROUNDS:-5}"); do
    # In turns, so that what else the machine does meets both.
    settle
    plain=$(run plain)
    settle
    began=$(date +%s.%N)
    background=$(run photo)
    written=$(date +%s.%N)
    [ "$(sql -c "SELECT sketch_wait('photo', '10 min')")" = t ]
    embedded=$(date +%s.%N)
    echo "$plain $background $(awk "BEGIN { print $written - $began }") $(awk "BEGIN { print $embedded - $began }")" | tee -a "$dir/figures" |
        awk -v round="$round" '{ printf "round %s: plain p50 %s ms, p95 %s ms; background p50 %s ms, p95 %s ms; written in %.1f s, embedded in %.1f s\n", round, $1, $2, $3, $4, $5, $6 }'
    [ "$(sql -c 'SELECT count(*) FILTER (WHERE fused IS NULL) FROM photo')" = 0 ]
done
figure() { cut -d' ' -f"$1" "$dir/figures" | median; }
awk -v plain="$(figure 2)" -v background="$(figure 4)" -v seconds="$(figure 6)" \
    'BEGIN { printf "p95 of writers: %s ms, without the extension %s ms: %.2f times; 1,000 photos are embedded %.1f s after the first was sent\n", background, plain, background / plain, seconds }'
