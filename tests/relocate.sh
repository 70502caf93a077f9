#!/usr/bin/env bash
# Copies a PostgreSQL, which finds its files relative to its programs, and prints the path of the copy's pg_config.
# An extension that is installed into the copy, with "make install DESTDIR=FOLDER", touches no other server.
#   tests/relocate.sh PG_CONFIG FOLDER
set -euo pipefail
pg_config=$(realpath "$1")
folder=$2
for option in --bindir --pkglibdir --sharedir --libdir; do
    from=$("$pg_config" "$option")
    # Debian's libraries are those of the system.
    [ "$option" != --libdir ] || [ -e "$from/libpq.so.5" ] || continue
    case $from in /usr/lib/x86_64-linux-gnu | /usr/lib/aarch64-linux-gnu) continue ;; esac
    [ ! -e "$folder$from" ] || continue
    mkdir -p "$folder$from"
    cp -a "$from/." "$folder$from/"
done
# A package of Python has libraries elsewhere, at a place relative to the programs.
{ ldd "$("$pg_config" --bindir)"/* 2>/dev/null || true; } | sed -n 's|.* => \(/.*/\.\./.*\) (.*|\1|p' | sort -u | while read -r library; do
    library=$(realpath "$library")
    [ ! -e "$folder$library" ] || continue
    mkdir -p "$folder${library%/*}"
    cp -a "$library" "$folder$library"
done
rm -rf "$folder$("$pg_config" --pkglibdir)"/pg_sketch* "$folder$("$pg_config" --sharedir)"/extension/pg_sketch*
copy=$folder$pg_config
[ "$("$copy" --pkglibdir)" = "$(realpath -m "$folder$("$pg_config" --pkglibdir)")" ] ||
    { echo "$pg_config cannot be copied: the copy's libraries are in $("$copy" --pkglibdir)" >&2; exit 1; }
echo "$copy"
