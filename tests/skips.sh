#!/usr/bin/env bash
# The end of `make test`: what was not run on this machine, and why. Only what needs a GPU may be missing where the tests
# run as root on a machine with Debian's and Python's packages: there (CI=true says so) any other skip fails the run.
set -euo pipefail

skips=${LETHE_SKIPS:?names the file that tests write their skips to}
if [[ ! -s $skips ]]; then
    echo "nothing was skipped"
    exit 0
fi
echo "not run on this machine:"
sort -u "$skips" | sed 's/^SKIPPED */  /'
others=$(grep -vc 'no GPU' "$skips" || true)
if [[ ${CI:-} == true && $others -gt 0 ]]; then
    echo "error: $others skips have another reason than a missing GPU" >&2
    exit 1
fi
