#!/usr/bin/env bash
# Build the wheel: build-wheel.sh SOURCE OUT
#
# The same source gives the same bytes: no time and no permission of this machine is in the wheel.
# SOURCE_DATE_EPOCH sets the time of its files, in seconds since 1970.
set -euo pipefail
source_dir=$1
out=$2
python=${PYTHON:-python3}

# A copy, so that building leaves nothing behind in the source.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
for name in pyproject.toml README.md LICENSE embedmill examples pipeline jobs schemas; do
    cp -r "$source_dir/$name" "$scratch/"
done
find "$scratch" -name __pycache__ -prune -exec rm -rf {} +
chmod -R u=rwX,go=rX "$scratch"
umask 022
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-1577836800} # 2020: ZIP knows no year before 1980
mkdir -p "$out"
"$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$out" "$scratch"
