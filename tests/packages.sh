#!/usr/bin/env bash
# Installs the Debian packages of FOLDER in a clean Debian 12, without Rust, sources or network; runs the six statements of the
# README; purges the packages, after which the data are still there; installs them again, and ranks the same.
#
#   tests/packages.sh FOLDER MAJOR ROOTS
#
# Needs root. The first run makes the clean system in ROOTS, with debootstrap and network; PostgreSQL other than 15 comes from
# the PostgreSQL project's repository.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(realpath "$1") major=$2 roots=$(realpath -m "$3")
fail() { echo "packages: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "debootstrap and chroot need root"

clean=$roots/bookworm-$major.tar
if [ ! -f "$clean" ]; then
    mkdir -p "$roots"
    partial=$(mktemp -d "$roots/partial.XXXXXX")
    # The user postgres must be able to enter it, and the caller's TMPDIR does not exist in it.
    chmod 755 "$partial"
    trap 'rm -rf "$partial"' EXIT
    echo "making a clean Debian 12 with PostgreSQL $major"
    env -u TMPDIR debootstrap --variant=minbase bookworm "$partial" >"$roots/debootstrap.log" || { tail "$roots/debootstrap.log" >&2; exit 1; }
    [ "$major" = 15 ] || { cp packaging/pgdg.sh "$partial/tmp/" && env -u TMPDIR chroot "$partial" /tmp/pgdg.sh >>"$roots/debootstrap.log" 2>&1; }
    printf '#!/bin/sh\nexit 101\n' >"$partial/usr/sbin/policy-rc.d" && chmod 755 "$partial/usr/sbin/policy-rc.d"
    LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive env -u TMPDIR chroot "$partial" sh -c \
        "apt-get update -qq && apt-get install -qq -y --no-install-recommends postgresql-$major && apt-get clean" >>"$roots/debootstrap.log" 2>&1 ||
        { tail "$roots/debootstrap.log" >&2; exit 1; }
    [ -d "$partial/etc/postgresql/$major/main" ] || { tail "$roots/debootstrap.log" >&2; fail "the clean system has no cluster"; }
    tar -C "$partial" -cf "$clean.new" . && mv "$clean.new" "$clean"
    rm -rf "$partial"
fi

root=$(mktemp -d "${TMPDIR:-/var/tmp}/pg_sketch-packages.XXXXXX")
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
tar -C "$root" -xf "$clean"
mkdir -p "$root/packages" "$root/srv/photos"
cp packaging/container/init.sh "$root/container-init.sh"
cp "$folder"/pg-sketch-runtime_*.deb "$folder/postgresql-$major-pg-sketch"_*.deb "$root/packages/"
# Enough photos for a codebook: coloured discs, boxes and stripes.
python3 - "$root/srv/photos" <<'PYTHON'
import pathlib, struct, sys, zlib
side = 96
for n in range(72):
    colour, paper = bytes((37 * n % 256, 91 * n % 256, 151 * n % 256)), bytes((255 - n, 240, 255 - 2 * n))
    inside = [lambda x, y: (x - 48) ** 2 + (y - 48) ** 2 < (12 + n // 3) ** 2,
              lambda x, y: abs(x - 40) < 8 + n // 3 and abs(y - 50) < 20,
              lambda x, y: (x + n * y // 24) % 24 < 12][n % 3]
    rows = b"".join(b"\0" + b"".join(colour if inside(x, y) else paper for x in range(side)) for y in range(side))
    chunk = lambda name, data: struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pathlib.Path(sys.argv[1], f"{n}.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
PYTHON
# The statements of the README, with the hammer's strokes also as the parameter of the last.
strokes=$(sed -n "s/.*sketch_embed('\(\[\[\[.*\]\]\]\)'::jsonb).*/\1/p" README.md)
[ -n "$strokes" ] || fail "README.md has no drawing"
sed -n '/^```sql$/,/^```$/{/^```/d;p}' README.md | sed "s/\$1::bytea/'$strokes'::bytea/" >"$root/six.sql"

cat >"$root/inside.sh" <<'INSIDE'
set -eu
major=$1
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
mount -t proc proc /proc
mkdir -p /dev/shm /run/postgresql && mount -t tmpfs tmpfs /dev/shm && chown postgres /run/postgresql
pg_conftool "$major" main set listen_addresses ''
pg_ctlcluster "$major" main start
ask() { runuser -u postgres -- psql -X --no-align --tuples-only --set ON_ERROR_STOP=1 "$@"; }
apt() { apt-get install -y --no-install-recommends /packages/*.deb >/tmp/apt.log 2>&1 || { cat /tmp/apt.log; exit 1; }; }
now() { date +%s%N; }
! command -v cargo && ! command -v rustc
! getent hosts deb.debian.org
started=$(now)
apt
installed=$(now)
ask -f /six.sql >/tmp/ranked
ended=$(now)
test "$(tail -10 /tmp/ranked | grep -c '^[0-9]*|[0-9]*\.png$')" = 10
test "$(tail -20 /tmp/ranked | head -10)" = "$(tail -10 /tmp/ranked)"
test "$(ask -c 'SELECT count(sketch_codebook_id(fused)) FROM photo')" = 72
echo "packages: apt install $(((installed - started) / 1000000)) ms, six statements (72 photos) $(((ended - installed) / 1000000)) ms"
# The script that sets up a container: the extension, and a gallery of a folder.
ask -q -c "CREATE DATABASE container"
POSTGRES_USER=postgres POSTGRES_DB=container PG_SKETCH_PHOTOS=/srv/photos \
    runuser -u postgres -- bash /container-init.sh >/tmp/init.log 2>&1 || { cat /tmp/init.log; exit 1; }
test "$(ask container -c 'SELECT count(DISTINCT name), count(sketch_codebook_id(fused)) FROM photo')" = '72|72'
# The worker, in place of a network in each connection.
pg_conftool "$major" main set shared_preload_libraries pg_sketch
pg_ctlcluster "$major" main restart
drawing=$(grep -o "'\[\[\[.*\]\]\]'::bytea" /six.sql)
rank() { ask -c "SELECT id, fused <-> sketch_embed($drawing) FROM photo ORDER BY 2, 1"; }
rank >/tmp/before
ask -c "SELECT name, value FROM sketch_status() WHERE name IN ('worker', 'version', 'onnxruntime_path')"
pg_conftool "$major" main set shared_preload_libraries ''
apt-get purge -y postgresql-$major-pg-sketch pg-sketch-runtime >/tmp/apt.log 2>&1
left=$(find / -xdev \( -path /proc -o -path /packages -o -path /var/lib/postgresql -o -path /tmp -o -path /container-init.sh \) -prune -o -iname '*pg[_-]sketch*' -print)
test -z "$left" || { echo "purge left: $left"; exit 1; }
pg_ctlcluster "$major" main restart
test "$(ask -c 'SELECT count(*), sum(octet_length(image)) > 0 FROM photo')" = '72|t'
if ask -c "SELECT fused FROM photo LIMIT 1" 2>/tmp/error; then exit 1; fi
grep -q 'could not access file' /tmp/error
apt
rank >/tmp/after
cmp /tmp/before /tmp/after
pg_ctlcluster "$major" main stop
echo "packages: purge left no file and all data; after another installation all photos rank the same"
INSIDE
env -u TMPDIR unshare --net --mount --pid --fork chroot "$root" sh /inside.sh "$major"
