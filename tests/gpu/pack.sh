#!/usr/bin/env bash
# make gpu-kit: packs what tests/gpu/run.sh needs into gpu-kit/ and gpu-kit.tar.gz, to be carried to a machine with a GPU and a python3 that
# has torch 2.11. The binaries are built before. Where libtorch is there, run.sh finds out.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
kit=gpu-kit limit_mb=60
rm -rf "$kit" "$kit.tar.gz"
mkdir -p "$kit/bin" "$kit/tests/gpu" "$kit/tests/bench" "$kit/examples/mnist/models" "$kit/tools/export"

# Cargo says where it has put the test binary and the NCCL object.
said=$(mktemp)
trap 'rm -f "$said"' EXIT
"${CARGO:-cargo}" test --release --locked --workspace --test gang --no-run --message-format=json >"$said"
built=$(python3 - "$said" <<'PYTHON'
import json, pathlib, sys
binary = nccl = None
for line in open(sys.argv[1]):
    if not line.startswith("{"):
        continue
    message = json.loads(line)
    if message["reason"] == "compiler-artifact" and message["target"]["name"] == "gang":
        binary = message["executable"]
    if message["reason"] == "build-script-executed" and "lethe-collective" in message["package_id"]:
        nccl = pathlib.Path(message["out_dir"]) / "liblethe_nccl.so"
print(binary, nccl)
PYTHON
)
read -r tests nccl <<<"$built"
# `lethe` is coordinator and agent too, as `lethe run`: no check needs more.
for name in lethe lethe-executor; do
    strip -o "$kit/bin/$name" "target/release/$name"
done
strip -o "$kit/bin/lethe-gang-tests" "$tests"
strip --strip-unneeded -o "$kit/bin/liblethe_nccl.so" "$nccl"

cp tests/gpu/*.py tests/gpu/run.sh "$kit/tests/gpu/"
cp tests/bench/random_models.py "$kit/tests/bench/"
cp tools/export/{__init__,native,sidecar}.py "$kit/tools/export/"
cp examples/mnist/models/{dcgan.safetensors,classifier.pt,features.pt}{,.json} "$kit/examples/mnist/models/"
cp LICENSE-APACHE LICENSE-MIT docs/gpu.md "$kit/"
git rev-parse HEAD >"$kit/COMMIT"
tar --sort=name --owner=0 --group=0 -czf "$kit.tar.gz" "$kit"

size() { du -sb "$1" | awk '{printf "%.1f", $1 / 1e6}'; }
echo "$kit: $(size $kit) MB unpacked, $kit.tar.gz: $(size $kit.tar.gz) MB"
awk -v mb="$(size $kit)" -v limit=$limit_mb 'BEGIN { exit !(mb < limit) }' || { echo "gpu-kit: more than $limit_mb MB" >&2; exit 1; }
