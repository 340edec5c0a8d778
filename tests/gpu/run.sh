#!/usr/bin/env bash
# Runs two example jobs on the GPUs of this machine, from binaries that were built elsewhere: Gloo is not used, one slot exercises
# the NCCL path with world size 1, several GPUs a real gang.
set -euo pipefail
cd "$(dirname "$0")/../.."

if [[ ! -d /proc/driver/nvidia/gpus ]]; then
    echo "SKIPPED: this machine has no NVIDIA GPU"
    exit 0
fi
passed=0
for job in thick-vae slant-dcgan; do
    spec=$(mktemp --suffix=.yaml)
    # Paths of the spec are relative to its folder, and the device is the one thing to change.
    sed -e "s#: models/#: $PWD/examples/mnist/models/#g" -e "s#: data/#: $PWD/examples/mnist/data/#" \
        -e 's/device: cpu/device: cuda/' "examples/mnist/$job.yaml" >"$spec"
    target/release/lethe run "$spec" --out "lethe-out/gpu-$job" --fresh
    passed=$((passed + 1))
done
echo "$passed passed, 0 failed"
