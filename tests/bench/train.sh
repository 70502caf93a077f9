#!/usr/bin/env bash
# Trains the same networks with the engine and with PyTorch, alternating, and prints images per CPU-second and their ratio.
#
# usage: [ROUNDS=3] [STEPS=3] [BATCH=32] [NETWORKS=...] [SIZES=...] [THREADS=...] tests/bench/train.sh
#
# A step is forward, backward and Adam, with BatchNormalization on the statistics of each batch. CPU-seconds are user and system
# time of the whole process. The faster of PyTorch's two layouts counts. PYTHON needs torch, timm and onnx.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/bench/median.sh
. "$here/median.sh"
engine=$(realpath "$here/../../target/release/examples/bench_train")
python=${PYTHON:-python3}
rounds=${ROUNDS:-3} steps=${STEPS:-3} batch=${BATCH:-32}

dir=$(mktemp -d /var/tmp/pg_sketch-bench.XXXXXX)
trap 'rm -rf "$dir"' EXIT

for network in ${NETWORKS:-mobilenetv2_050 efficientnet_lite0}; do
    for size in ${SIZES:-112 224}; do
        "$python" "$here/train.py" export "$network" "$size" "$dir/network.onnx" >"$dir/log" 2>&1 || { cat "$dir/log" >&2; exit 1; }
        for threads in ${THREADS:-1 2}; do
            for round in $(seq "$rounds"); do
                "$engine" "$dir/network.onnx" "$size" "$batch" "$steps" "$threads"
                # Passive, because PyTorch's waiting threads would otherwise spin, and take ten times the CPU time on a busy machine.
                OMP_WAIT_POLICY=passive OMP_NUM_THREADS=$threads "$python" "$here/train.py" time "$network" "$size" "$batch" "$steps" "$threads"
                echo "$network $size px, threads $threads: round $round of $rounds" >&2
            done >"$dir/rates"
            awk -v cell="$network $size px, threads $threads" -v engine="$(median_of engine "$dir/rates")" -v nchw="$(median_of nchw "$dir/rates")" \
                -v last="$(median_of channels_last "$dir/rates")" 'BEGIN {
                    best = nchw > last ? nchw : last
                    printf "%s: engine %.1f, PyTorch %.1f, channels-last %.1f images/CPU-s; ", cell, engine, nchw, last
                    printf "ratio %.2f (engine / the better layout; above 1 is faster)\n", engine / best
                }
            '
        done
    done
done
