#!/usr/bin/env bash
# Writes the .txt beside each .in: every Python package with its version and its digests, for all platforms. Needs uv, which nothing
# else here does. To be run after a change of an .in, or to take newer versions.
set -euo pipefail
cd "$(dirname "$0")"

lock() { # name, further options
    uv pip compile --quiet --universal --generate-hashes --python-version 3.10 --no-header --no-annotate "${@:2}" "$1.in" -o "$1.txt"
}
for alone in libtorch-cpu nccl-headers torch-python; do
    lock "$alone" --no-deps
done
lock export
lock python --constraint export.txt
lock faces --constraint python.txt
lock bench --constraint python.txt
