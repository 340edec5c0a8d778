#!/usr/bin/env bash
# Checks on one GPU that Lethe computes what it computes on a cpu, and measures it beside PyTorch: docs/gpu.md.
#
#   tests/gpu/run.sh            in an unpacked gpu-kit, or in a checkout after make gpu-kit
#   tests/gpu/run.sh --cpu      every part that can run without a GPU, on the cpu
#
# It needs the kit's binaries, and a python3 that has torch, whose libtorch is used: no network, nothing is built or
# installed, nothing is written but $OUT (out/ here unless set). LIBTORCH names another libtorch, PYTHON another python3.
# Ends with 0 when everything passed, 1 when something failed, 3 when there is no GPU: then nothing was checked.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

die() { echo "test-gpu: $1" >&2; exit "${2:-1}"; }

has_gpu() {
    # As the agent counts: what the driver lists, or its device files where /proc shows no list.
    compgen -G '/proc/driver/nvidia/gpus/*' >/dev/null || compgen -G '/dev/nvidia[0-9]*' >/dev/null
}

case " $* " in
*" --cpu "*) ;;
*) has_gpu || die "NO GPU: neither /proc/driver/nvidia/gpus nor /dev/nvidia* shows one, so NOTHING was checked (--cpu runs what needs none)" 3 ;;
esac

find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 "$root/.venv/bin/python3"; do
        if "$candidate" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}
python=$(find_python) || die "no python3 that has torch: set PYTHON to one (pip install torch==2.11.0)"

torch=${LIBTORCH:-$("$python" -c 'import importlib.util; print(importlib.util.find_spec("torch").submodule_search_locations[0])')}
torch=$(cd "$torch" && pwd -P) || die "LIBTORCH: no such folder"
[[ -e $torch/lib/libtorch_cpu.so ]] || die "$torch/lib has no libtorch_cpu.so: is it a torch folder?"
if ! grep -q "'2\.11\." "$torch/version.py" 2>/dev/null && [[ -z ${LIBTORCH_BYPASS_VERSION_CHECK:-} ]]; then
    die "$torch is not torch 2.11, against which the binaries were built ($(grep -m1 '^__version__' "$torch/version.py" 2>/dev/null))"
fi
bin=$root/bin
[[ -x $bin/lethe-executor ]] || bin=$root/gpu-kit/bin
[[ -x $bin/lethe-executor ]] || die "no lethe-executor in $root/bin or $root/gpu-kit/bin: make gpu-kit, or unpack all of one"

# Executors inherit it. The CUDA libraries lie beside torch in wheels of their own, where its run path looks; elsewhere this helps.
libraries=$torch/lib
for folder in "$torch"/../nvidia/*/lib; do [[ -d $folder ]] && libraries+=":$folder"; done
export LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export LETHE_BIN_DIR=$bin PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
exec "$python" "$here/main.py" "$@"
