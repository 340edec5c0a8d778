#!/usr/bin/env bash
# Puts buf, which lints the .proto files, into a venv ($1). It comes out of its authors' npm package; nothing of that is installed or run.
set -euo pipefail

venv=$1
version=1.75.0
case $(uname -m) in
x86_64) build=x64 digest=98b19d4b2b46130e083157490c54dfdcb8ea771e53204d3c6a06a2b12edd0503 ;;
aarch64) build=aarch64 digest=ea5b4981ad7199a482609c3f1f7230767e095c4a5a7e96ae74a21225a1fc75dc ;;
*)
    echo "error: there is no buf for $(uname -m)" >&2
    exit 1
    ;;
esac
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
archive=$folder/$(cd "$folder" && npm pack --silent "@bufbuild/buf-linux-$build@$version")
echo "$digest  $archive" | sha256sum --check --quiet
tar -xzf "$archive" -C "$folder" package/bin/buf
install -m 755 "$folder/package/bin/buf" "$venv/bin/buf"
"$venv/bin/buf" --version >/dev/null
