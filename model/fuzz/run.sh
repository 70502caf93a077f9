#!/usr/bin/env bash
# Runs fuzz targets, each for so many seconds; says nothing if nothing is found. Corpora start from the test fixtures and
# grow in .build/fuzz.
#   model/fuzz/run.sh SECONDS [TARGET...]    all targets unless named; "list" for SECONDS prints their names
#   model/fuzz/run.sh FILE TARGET            one input, such as a crash that was found
# JOBS of them run at a time. WORK names another folder than .build/fuzz.
set -euo pipefail
cd "$(dirname "$0")"
work=${WORK:-$PWD/../../.build/fuzz}
mkdir -p "$work"
work=$(cd "$work" && pwd)
host=$(rustc -vV | sed -n 's/^host: //p')

# What cargo-fuzz passes. A target of its own keeps build scripts without instruments.
export RUSTC_BOOTSTRAP=1 RUSTFLAGS="--cfg fuzzing -Zsanitizer=address -Cpasses=sancov-module \
-Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
cargo build --quiet --release --locked --target "$host" --target-dir "$work/target"
fuzz=$work/target/$host/release/fuzz

if [ "${1:?usage: $0 SECONDS [TARGET...]}" = list ]; then exec "$fuzz"; fi
if [ -f "$1" ]; then FUZZ_TARGET=$2 exec "$fuzz" "$1"; fi

run() {
    local target=$1 corpus=$work/$1 options
    mkdir -p "$corpus" "$work/found"
    # Bounds on one input: seconds, beside other work, and megabytes at once and in all.
    options=(-max_total_time="$seconds" -timeout=30 -malloc_limit_mb=256 -rss_limit_mb=2048 -detect_leaks=0 -print_final_stats=1
        -dict="$corpus.words" -artifact_prefix="$work/found/$target-")
    if FUZZ_TARGET=$target FUZZ_SEEDS=$corpus "$fuzz" "${options[@]}" "$corpus" >"$corpus.log" 2>&1; then
        echo "$(date -u +%FT%TZ) $target $seconds $(sed -n 's/^stat::number_of_executed_units: *//p' "$corpus.log")" >>"$work/runs"
    else
        echo "fuzz: target $target found something; $corpus.log says what:" >&2
        grep -E -A 2 'panicked at|^==[0-9]+== ?ERROR|^SUMMARY|Test unit written' "$corpus.log" | head -n 40 >&2 || tail -n 20 "$corpus.log" >&2
        return 1
    fi
}
seconds=$1
shift
[ $# -gt 0 ] || mapfile -t targets < <("$fuzz")
[ $# -eq 0 ] || targets=("$@")
export -f run
export work fuzz seconds
printf '%s\n' "${targets[@]}" | xargs -P "${JOBS:-1}" -I {} bash -c 'run {}'
