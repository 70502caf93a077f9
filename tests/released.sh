#!/usr/bin/env bash
# Released SQL is frozen: databases that hold it are out there. Refuses a tree that changes it, and versions that disagree.
#   tests/released.sh          checks
#   tests/released.sh freeze   adds the SQL of the tree's version, at its release
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)
fail() { echo "released.sh: $*" >&2; exit 1; }

# The files that "make install" would write.
current() { make --no-print-directory --silent print-sql; }

if [ "${1:-}" = freeze ]; then
    last=$(sed -nE 's/.* pg_sketch--([0-9.]+)\.sql$/\1/p' sql/released.sha256 | tail -1)
    [ "$last" != "$version" ] || fail "$version is released"
    current >"sql/pg_sketch--$version.sql"
    (cd sql && sha256sum "pg_sketch--$last--$version.sql" "pg_sketch--$version.sql") >>sql/released.sha256
fi

(cd sql && sha256sum --check --quiet released.sha256) ||
    fail "released SQL must not change; put the change into the script that updates to the next version"
# The list only grows. Without history (an archive, a shallow clone), the sums alone must do.
if base=$(git merge-base HEAD "${RELEASED_BASE:-origin/main}" 2>/dev/null) &&
    released=$(git show "$base:sql/released.sha256" 2>/dev/null); then
    gone=$(comm -23 <(sort <<<"$released") <(sort sql/released.sha256))
    [ -z "$gone" ] || fail "sql/released.sha256 lost lines of $base: $gone"
fi
if [ -f "sql/pg_sketch--$version.sql" ]; then
    current | cmp --silent - "sql/pg_sketch--$version.sql" ||
        fail "$version is released; raise the version in Cargo.toml before you change its SQL"
fi
last=$(sed -nE 's/.* pg_sketch--([0-9.]+)\.sql$/\1/p' sql/released.sha256 | tail -1)
[ "$last" = "$version" ] || [ -f "sql/pg_sketch--$last--$version.sql" ] || fail "sql/pg_sketch--$last--$version.sql is missing"

meta=$(python3 -c 'import json; m = json.load(open("META.json")); print(m["version"], m["provides"]["pg_sketch"]["version"])')
[ "$meta" = "$version $version" ] || fail "META.json has version $meta, Cargo.toml $version"
grep -qF "default_version = '@CARGO_VERSION@'" pg_sketch.control || fail "pg_sketch.control must take its version from Cargo.toml"
grep -qF "## [$version]" CHANGELOG.md || fail "CHANGELOG.md has no section for $version"
echo "version $version; released SQL is as it was"
