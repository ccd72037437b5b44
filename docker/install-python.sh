#!/usr/bin/env bash
# Install the wheel with the exact versions it was tested with: install-python.sh PREFIX WHEEL CONSTRAINTS
#
# TORCH_INDEX names the index torch comes from; empty: pip's own.
set -euo pipefail
prefix=$1
wheel=$2
constraints=$3
python=${PYTHON:-python3}

"$python" -m venv "$prefix"
install=("$prefix/bin/python" -m pip install --quiet --no-cache-dir --disable-pip-version-check
    --constraint "$constraints")

# The index of CPU builds first: the default build of torch on Linux brings CUDA with it.
index=${TORCH_INDEX-https://download.pytorch.org/whl/cpu}
if [ -n "$index" ]; then
    "${install[@]}" --no-deps --index-url "$index" torch==2.13.0
else
    "${install[@]}" --no-deps torch==2.13.0
fi
"${install[@]}" "$wheel[jobs]"
