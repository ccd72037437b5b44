#!/usr/bin/env bash
# Install the wheel with the exact versions it was tested with:
# install-python.sh PREFIX WHEEL CONSTRAINTS [EXTRA,...]
#
# With a pyproject.toml in place of the wheel: what the package requires, and not the package.
# TORCH_INDEX names the index torch comes from; empty: pip's own. An environment that is there
# already is added to.
set -euo pipefail
prefix=$1
wheel=$2
constraints=$3
extras=${4-all}
python=${PYTHON:-python3}

[ -x "$prefix/bin/python" ] || "$python" -m venv "$prefix"
install=("$prefix/bin/python" -m pip install --quiet --no-cache-dir --disable-pip-version-check
    --constraint "$constraints")

if [[ ,$extras, =~ ,(train|all), ]]; then
    # The index of CPU builds first: the default build of torch on Linux brings CUDA with it.
    index=${TORCH_INDEX-https://download.pytorch.org/whl/cpu}
    "${install[@]}" --no-deps ${index:+--index-url "$index"} torch
fi
if [[ $wheel == *.toml ]]; then
    required=$("$prefix/bin/python" "$(dirname "$0")/requirements.py" "$wheel" "$extras")
    "${install[@]}" --requirement /dev/stdin <<<"$required"
else
    "${install[@]}" "$wheel${extras:+[$extras]}"
fi
