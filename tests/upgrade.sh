#!/usr/bin/env bash
# A year of a database: version 0.1.0, as git has it, fills a server; this tree's version replaces library and SQL; pg_upgrade
# and a dump move the data to later versions of PostgreSQL. After each step, the rankings are those of before.
#
#   tests/upgrade.sh PG_CONFIG...   PostgreSQL versions in ascending order; the first is that of PG
#
# Each runs from a copy, so that the servers of this machine keep their extension. The extension is built here, for each.
set -euo pipefail
cd "$(dirname "$0")/.."
# 0.1.0 was released without a tag.
old_version=0.1.0
old_commit=a840d67
: "${1:?usage: $0 PG_CONFIG...}"
work=$PWD/.build/upgrade
dir=$(mktemp -d "${TMPDIR:-/var/tmp}/pg_sketch-upgrade.XXXXXX")
chmod 755 "$dir"
server=$1
trap 'for cluster in "$dir"/cluster*/data; do PG_CONFIG=$server tests/cluster.sh remove "${cluster%/data}"; done; rm -rf "$dir"' EXIT
fail() { echo "upgrade: $*" >&2; exit 1; }
major_of() { "$1" --version | sed -nE 's/^PostgreSQL ([0-9]+).*/\1/p'; }

# build_old PG_CONFIG: compiles the old version in a tree and a target folder of its own.
build_old() {
    local tree=$work/$old_version major
    major=$(major_of "$1")
    [ -d "$tree" ] || { mkdir -p "$tree" && git archive "$old_commit" | tar -x -C "$tree"; }
    mkdir -p "$tree/.build" && touch "$tree/.build/packages"
    ln -sfn ../../../onnxruntime "$tree/.build/onnxruntime"
    ln -sfn ../target "$tree/target"
    mkdir -p "$work/target"
    (cd "$tree" && unset CARGO_TARGET_DIR && PGRX_PG_CONFIG_PATH=$1 cargo build --quiet --release -p pg_sketch --no-default-features --features "pg$major")
}

# install_into ROOT TREE PG_CONFIG: what "make install" of that tree copies; it is built already.
install_into() {
    make --no-print-directory -C "$2" --old-file=build install DESTDIR="$1" PG="$(major_of "$3")" PG_CONFIG="$3" ONNXRUNTIME="$PWD/.build/onnxruntime/libonnxruntime.so"
}

# use PG_CONFIG_OF_COPY CLUSTER: the server that the following steps run and ask.
use() { server=$1 cluster=$2 bindir=$("$1" --bindir) PGHOST=$dir/cluster$2 PGUSER=postgres PGOPTIONS='--client-min-messages=warning'; export PGHOST PGUSER PGOPTIONS; }
start() { PG_CONFIG=$server SETTINGS="shared_preload_libraries = 'pg_sketch'" tests/cluster.sh start "$dir/cluster$cluster" >/dev/null; }
stop() { PG_CONFIG=$server tests/cluster.sh stop "$dir/cluster$cluster"; }
as_server() { if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi; }
psql_in() { "$bindir/psql" -X --quiet --set ON_ERROR_STOP=1 --no-align --tuples-only --dbname "$@"; }

# rank DATABASE WHEN: compares with what the old version ranked.
rank() {
    psql_in "$1" -f tests/upgrade/rank.sql >"$dir/ranking"
    diff "$dir/before" "$dir/ranking" >"$dir/diff" || { head -20 "$dir/diff" >&2; fail "$2, the ranking is another"; }
    echo "$2: the same ranking ($(wc -l <"$dir/before") lines)"
}

# refuses DATABASE STATEMENT PATTERN...: the statement is an error that says all that, and the server goes on.
refuses() {
    local database=$1 statement=$2 said
    shift 2
    if said=$(psql_in "$database" -c "$statement" 2>&1); then fail "accepted: $statement"; fi
    for pattern in "$@"; do grep -q "$pattern" <<<"$said" || fail "expected \"$pattern\", got: $said"; done
    psql_in "$database" -c "SELECT" >/dev/null || fail "the server did not survive: $statement"
    sed 's/^/    /' <<<"$said"
}

first=$(major_of "$1")
echo "building $old_version of $old_commit for $("$1" --version)"
build_old "$1"
old=$(tests/relocate.sh "$1" "$dir/old")
install_into "$dir/old" "$work/$old_version" "$1"
declare -a new
for config in "$@"; do
    major=$(major_of "$config")
    PG_CONFIG=$config make --no-print-directory build PG="$major" CRATES='-p pg_sketch'
    new+=("$(tests/relocate.sh "$config" "$dir/new$major")")
    install_into "$dir/new$major" . "$config"
done

use "$old" "$first"
start
psql_in postgres -c "CREATE DATABASE gallery" -c "CREATE DATABASE behind"
psql_in gallery --set photo="$(base64 -w0 model/tests/fixtures/photo.png)" -f tests/upgrade/fill.sql >/dev/null
psql_in behind -c "CREATE EXTENSION pg_sketch"
psql_in gallery -f tests/upgrade/rank.sql >"$dir/before"
[ "$(grep -c '^index' "$dir/before")" = 150 ] || fail "the old version ranked nothing"
echo "$old_version filled two galleries: $(grep -c '^scan' "$dir/before") photos, $(psql_in gallery -c 'SELECT count(*) FROM sketch.codebook') codebooks, 2 indexes"

echo "the SQL is newer than the library"
cp "$dir/new$first$("$1" --sharedir)"/extension/pg_sketch* "$dir/old$("$1" --sharedir)/extension/"
refuses behind "ALTER EXTENSION pg_sketch UPDATE" "library of pg_sketch is older" "HINT:.*restart"
refuses postgres "CREATE EXTENSION pg_sketch" "library of pg_sketch is older" "HINT:.*restart"
rank gallery "with new SQL files beside the old library"
stop

use "${new[0]}" "$first"
start
echo "the library is newer than the SQL"
rank gallery "with the new library, before ALTER EXTENSION"
psql_in gallery -c "INSERT INTO photo (id, image) SELECT 5000, image FROM photo WHERE id = 1"
same=$(psql_in gallery -c "SELECT a.fused <-> b.fused = 0 FROM photo AS a, photo AS b WHERE (a.id, b.id) = (1, 5000)")
[ "$same" = t ] || fail "a photo inserted before ALTER EXTENSION is fused differently"
psql_in gallery -c "DELETE FROM photo WHERE id = 5000" -c "VACUUM photo"
refuses gallery "CALL sketch_embed_photos('photo')" "needs an update of extension" "HINT:.*ALTER EXTENSION pg_sketch UPDATE"
psql_in gallery -c "SELECT name, value FROM sketch_status() WHERE name LIKE '%version'"

psql_in gallery -c "ALTER EXTENSION pg_sketch UPDATE"
psql_in behind -c "ALTER EXTENSION pg_sketch UPDATE"
psql_in postgres -c "CREATE EXTENSION pg_sketch"
for database in postgres behind gallery; do psql_in $database -f tests/upgrade/catalog.sql >"$dir/catalog-$database"; done
for database in behind gallery; do
    diff "$dir/catalog-postgres" "$dir/catalog-$database" >"$dir/diff" ||
        { cat "$dir/diff" >&2; fail "the updated catalogue (>) is not that of a fresh installation (<)"; }
done
echo "updated: $(wc -l <"$dir/catalog-postgres") properties of the catalogue as in a fresh installation"
rank gallery "after ALTER EXTENSION"

# The galleries go on: a new photo, the owner's own gallery, bulk embedding, and the end of a gallery.
goes_on() {
    psql_in "$1" -c "INSERT INTO photo (id, image) SELECT 5000, image FROM photo WHERE id = 1" \
        -c "CALL sketch_embed_photos('photo')" \
        -c 'SET ROLE curator' -c 'INSERT INTO "Art & Craft"."Photo" ("Id", "The image") SELECT 500, "The image" FROM "Art & Craft"."Photo" WHERE "Id" = 1' \
        -c "CALL sketch_embed_photos('\"Art & Craft\".\"Photo\"')"
    [ "$(psql_in "$1" -c "SELECT a.fused <-> b.fused = 0 FROM photo AS a, photo AS b WHERE (a.id, b.id) = (1, 5000)" \
        -c 'SELECT count(*), count("Fused") FROM "Art & Craft"."Photo"')" = $'t\n101|101' ] || fail "$2, a new photo is fused differently"
    psql_in "$1" -c "DELETE FROM photo WHERE id = 5000" -c 'DELETE FROM "Art & Craft"."Photo" WHERE "Id" = 500' -c "VACUUM photo"
}
goes_on gallery "after ALTER EXTENSION"

# Another version's index and embeddings: the version on the first page is behind the server's header and our kind of page.
file=$(psql_in gallery -c "CHECKPOINT" -c "SELECT pg_relation_filepath('plain_e_idx')")
stop
path=$dir/cluster$cluster/data/$file
[ "$(od -An -tu2 -j28 -N2 "$path" | tr -d ' ')" = 1 ] || fail "the first page of an index has its version elsewhere"
printf '\011\000' | dd of="$path" bs=1 seek=28 conv=notrunc status=none
start
refuses gallery "SET enable_seqscan = off; SELECT id FROM plain ORDER BY e <-> (SELECT e FROM plain LIMIT 1) LIMIT 1" \
    "index has format 9, expected 1" "HINT:.*REINDEX INDEX plain_e_idx"
refuses gallery "INSERT INTO plain SELECT 100, e FROM plain LIMIT 1" "index has format 9" "HINT:.*REINDEX INDEX plain_e_idx"
psql_in gallery -c "REINDEX INDEX plain_e_idx"
rank gallery "after the REINDEX of an index of another version"

for ((i = 1; i < ${#new[@]}; i++)); do
    from=${new[$((i - 1))]} to=${new[$i]}
    major=$(major_of "$to")
    step="pg_upgrade from $(major_of "$from") to $major"
    psql_in gallery -c "DROP DATABASE IF EXISTS restored" >/dev/null
    "$bindir/pg_dump" --format=custom gallery >"$dir/gallery.dump"
    stop
    old_data=$dir/cluster$cluster/data
    use "$to" "$major"
    CHECKSUMS=off start
    # A dump of the earlier version, restored in the later one.
    psql_in postgres -c "CREATE DATABASE restored" -c "CREATE ROLE curator"
    "$bindir/pg_restore" --exit-on-error --dbname=restored "$dir/gallery.dump"
    rank restored "dump and restore from $(major_of "$from") to $major"
    psql_in postgres -c "DROP DATABASE restored" -c "DROP ROLE curator"
    stop
    (cd "$dir/cluster$cluster" && as_server env -u PGHOST -u RUST_BACKTRACE "$bindir/pg_upgrade" --old-bindir "$("$from" --bindir)" --new-bindir "$bindir" \
        --old-datadir "$old_data" --new-datadir "$dir/cluster$cluster/data" --username postgres \
        --old-options "-c unix_socket_directories='$dir/cluster$cluster'" >"$dir/pg_upgrade.log" 2>&1) ||
        { tail -n 20 "$dir/pg_upgrade.log" "$dir/cluster$cluster"/data/pg_upgrade_output.d/*/log/*.log >&2; fail "$step failed"; }
    start
    rank gallery "$step"
    goes_on gallery "$step"
done
echo "upgrade: $old_version to $(psql_in gallery -c "SELECT extversion FROM pg_extension WHERE extname = 'pg_sketch'") and PostgreSQL $(for config in "$@"; do printf '%s ' "$(major_of "$config")"; done)passed"
