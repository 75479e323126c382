#!/bin/sh
# Everything that needs a graphics card, in about six minutes: tools/bench/gpu.sh > table.txt
# Random weights of full size: speed and memory are those of the real ones, images are not. Each row of straight use is
# of the same run. With another --random or --preset as arguments it runs on any machine.
set -eu
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
if [ $# -eq 0 ]; then
    "$python" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null || {
        echo "gpu.sh: expected a CUDA card, found none. 'tools/bench/gpu.sh --models menagerie --preset quick' tries it on a CPU." >&2
        exit 1
    }
    nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader
    set -- --random sdxl --preset paper --set sampling_steps=50 n_images=16 target_cluster_size=4 min_cluster_size=2 refine_steps=60
fi
bench() { echo; echo "== $1"; shift; "$python" tools/bench "$@" --anyway; }
bench "drawing 16 images, refining at batch 1" "$@"
bench "compiled blocks" "$@" --compile --set refine_steps=4
bench "refining at batch 4" "$@" --set n_images=4 target_cluster_size=1 min_cluster_size=1 refine_batch_size=4
bench "low memory" "$@" --low-memory --set n_images=2 target_cluster_size=1 min_cluster_size=1 batch_size=1 refine_steps=4
echo; echo "== the miniature's recipe, 60 seconds"
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
cp -r data/menagerie "$work/out"
"$python" -m menagerie.train --stages unet --from-saved --minutes 1 --set n_renders=${RENDERS:-2000} --out "$work/out" --work "$work"
