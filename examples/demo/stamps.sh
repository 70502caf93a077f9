#!/usr/bin/env bash
# Fills FOLDER with photos: cut-out animals, food, tools and vehicles of Debian's tuxpaint-stamps-default (GPL-2).
#
# usage: examples/demo/stamps.sh FOLDER
#
# Downloads 160 MB and installs nothing.
set -euo pipefail

package=tuxpaint-stamps-default
folder=$(realpath -m "${1:?usage: $0 FOLDER}")

# The stamps are photos and drawings. Excluded are other folders, which hold cartoons, flags, road signs and letters; folders named
# "cartoon"; mirrored copies; and these few drawings among the photos.
photos=(animals food hobbies household medical military plants space sports vehicles)
drawings=(
    animals/insects/bee.png animals/mammals/echidna.png animals/mammals/hedgehog.png food/pizza.png
    medical/tooth.png vehicles/emergency/sedan_police.png
)

download() {
    # apt's own user cannot write into a folder that root owns.
    (cd "$1" && apt-get download -qq -o APT::Sandbox::User=root "$package")
}

mkdir -p "$(dirname "$folder")"
work=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$work"' EXIT
if ! download "$work" 2>/dev/null; then
    # A fresh machine has no package lists.
    [ "$(id -u)" != 0 ] || apt-get update -qq
    download "$work" || {
        echo "could not download $package; run \"apt-get update\" as root, or use your own photos: make demo PHOTOS=folder" >&2
        exit 1
    }
fi

mkdir "$work/photos"
root=./usr/share/tuxpaint/stamps
dpkg-deb --fsys-tarfile "$work/$package"_*.deb | tar -x -C "$work/photos" --strip-components=5 --wildcards \
    --exclude='*/cartoon/*' --exclude='*_mirror.png' "${drawings[@]/#/--exclude=$root/}" \
    "${photos[@]/#/$root/}"
find "$work/photos" -type f ! -name '*.png' -delete
find "$work/photos" -type d -empty -delete
mv "$work/photos" "$folder"  # last, so that an existing folder is complete
