#!/usr/bin/env bash
# Build the wheel: build-wheel.sh SOURCE OUT
set -euo pipefail
source_dir=$1
out=$2
python=${PYTHON:-python3}

# A copy, so that building leaves nothing behind in the source.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
for name in pyproject.toml README.md LICENSE embedmill pipeline jobs schemas; do
    cp -r "$source_dir/$name" "$scratch/"
done
mkdir -p "$out"
"$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$out" "$scratch"
