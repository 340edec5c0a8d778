#!/usr/bin/env bash
# Lays a worker out: bin/ with the two programs, lib/ with the libraries they load, all in one folder, where their rpath
# ($ORIGIN/../lib) and that of libtorch ($ORIGIN) find them. Usage: collect.sh cpu|cuda BUILD SITE_PACKAGES OUT
set -euo pipefail
if [[ $# -ne 4 || ($1 != cpu && $1 != cuda) ]]; then
    echo "usage: ${0##*/} cpu|cuda BUILD SITE_PACKAGES OUT" >&2
    exit 2
fi
flavour=$1 build=$2 packages=$3 out=$4

mkdir -p "$out/bin" "$out/lib"
cp "$build/lethe-worker" "$build/lethe-executor" "$out/bin/"
case $flavour in
cpu)
    # libtorch_cpu is linked against the CUDA runtime and its profiler even where no GPU is.
    cp "$packages"/torch/lib/{libc10.so,libtorch_cpu.so,libgomp.so.1} "$out/lib/"
    cp "$packages"/nvidia/cu13/lib/{libcudart.so.13,libcupti.so.13} "$out/lib/"
    ;;
cuda)
    cp "$packages"/torch/lib/*.so* "$out/lib/"
    rm -f "$out"/lib/libtorch_python.so
    cp "$packages"/nvidia/*/lib/*.so* "$out/lib/"
    # The NCCL process group is looked for beside the executor.
    find "$build/build" -path '*/lethe-collective-*/out/liblethe_nccl.so' -exec cp {} "$out/bin/" \;
    test -e "$out/bin/liblethe_nccl.so"
    ;;
esac
