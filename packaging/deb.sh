#!/usr/bin/env bash
# Debian packages in FOLDER, of what "make install DESTDIR=ROOT" has copied.
#
#   packaging/deb.sh ROOT MAJOR VERSION NOTICES FOLDER
#
# NOTICES is the file with the licences of what ONNX Runtime contains.
#
#   pg-sketch-runtime             ONNX Runtime and the network, for all versions of PostgreSQL
#   postgresql-MAJOR-pg-sketch    library and SQL
set -euo pipefail
root=$1 major=$2 version=$3 notices=$4 folder=$5
here=$(cd "$(dirname "$0")" && pwd)
architecture=$(dpkg --print-architecture)
library=usr/lib/postgresql/$major/lib
share=usr/share/postgresql/$major/extension
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umask 022
# The date of the last change: a build of the same source is the same package.
: "${SOURCE_DATE_EPOCH:=$(git -C "$here" log -1 --format=%ct)}"
export SOURCE_DATE_EPOCH

# package NAME DEPENDS DESCRIPTION: finishes and packs the tree $work/NAME.
package() {
    local name=$1 tree=$work/$1 depends=$2 summary=$3 long=$4
    install -d "$tree/DEBIAN" "$tree/usr/share/doc/$name"
    install -m 644 "$here/copyright" "$tree/usr/share/doc/$name/copyright"
    printf 'pg-sketch (%s) unstable; urgency=medium\n\n  * See CHANGELOG.md of the source.\n\n -- pg_sketch maintainers <maintainers@pg-sketch.example>  %s\n' \
        "$version" "$(date --utc --rfc-email --date "@$SOURCE_DATE_EPOCH")" | gzip -9n >"$tree/usr/share/doc/$name/changelog.gz"
    find "$tree" -name '*.so' -type f -exec strip --strip-unneeded --remove-section=.comment {} + -exec chmod 644 {} +
    cat >"$tree/DEBIAN/control" <<EOF
Package: $name
Source: pg-sketch
Version: $version
Architecture: $architecture
Maintainer: pg_sketch maintainers <maintainers@pg-sketch.example>
Installed-Size: $(du -sk --exclude=DEBIAN "$tree" | cut -f1)
Depends: ${depends:+$depends, }$(libraries "$tree")
Section: database
Priority: optional
Description: $summary
$long
EOF
    (cd "$tree" && find usr -type f -exec md5sum {} + | sort -k 2) >"$tree/DEBIAN/md5sums"
    find "$tree" -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} +
    dpkg-deb --root-owner-group -Zxz --build "$tree" "$folder" >/dev/null
    ls -l "$folder/${name}_${version}_$architecture.deb" | awk '{ printf "%s %.1f MB\n", $NF, $5 / 1e6 }'
}

# libraries TREE: packages of the shared libraries that the tree's files are linked with.
libraries() {
    mkdir -p "$work/shlibs/debian"
    printf 'Source: pg-sketch\n\nPackage: pg-sketch\nArchitecture: any\n' >"$work/shlibs/debian/control"
    (cd "$work/shlibs" && find "$1" -name '*.so' -type f -exec dpkg-shlibdeps -O --ignore-missing-info {} + 2>/dev/null) |
        sed 's/^shlibs:Depends=//'
}

runtime=$work/pg-sketch-runtime
install -d "$runtime/usr/lib" "$folder"
cp -a "$root/$library/pg_sketch" "$runtime/usr/lib/pg-sketch"
install -D -m 644 "$notices" "$runtime/usr/share/doc/pg-sketch-runtime/ThirdPartyNotices.txt"
gzip -9n "$runtime/usr/share/doc/pg-sketch-runtime/ThirdPartyNotices.txt"
package pg-sketch-runtime "" "ONNX Runtime and neural network of pg_sketch" \
" pg_sketch finds photos in PostgreSQL by drawings of what they show. This
 package contains what its packages for all versions of PostgreSQL share:
 ONNX Runtime, and the network that turns drawings and photos into
 embeddings."

extension=$work/postgresql-$major-pg-sketch
install -d "$extension/$library" "$extension/$share"
cp -a "$root/$library/pg_sketch.so" "$extension/$library/"
cp -a "$root/$share"/pg_sketch* "$extension/$share/"
ln -s ../../../pg-sketch "$extension/$library/pg_sketch"
package "postgresql-$major-pg-sketch" "postgresql-$major, pg-sketch-runtime (= $version)" \
    "find photos in PostgreSQL $major by drawings" \
" pg_sketch is an extension that turns a drawing into an embedding inside the
 database, so that plain SQL ranks photos by their distance to it. The network
 runs inside PostgreSQL; it needs no GPU and no training on the photos."
