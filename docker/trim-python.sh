#!/usr/bin/env bash
# Make an environment smaller: trim-python.sh PREFIX [DISTRIBUTION ...]
#
# Removes the distributions named, then pip, tests, headers and what only builds of C++ need, and
# writes what is left as PREFIX/sbom.json (CycloneDX).
set -euo pipefail
prefix=$1
shift
site=$(echo "$prefix"/lib/python3.*/site-packages)

[ $# = 0 ] || "$prefix/bin/python" -m pip uninstall --quiet --yes "$@"
"$prefix/bin/python" -m pip uninstall --quiet --yes pip setuptools
"$prefix/bin/python" "$(dirname "$0")/write_sbom.py" "$prefix/sbom.json"

for package in numpy pandas pyarrow scipy sympy networkx torch; do
    [ -d "$site/$package" ] || continue
    find "$site/$package" -type d \( -name tests -o -name include \) -prune -exec rm -rf {} +
done
rm -rf "$site"/torch/{test,share} "$site"/ray/{jars,cpp,rllib}
find "$site/torch/bin" -type f ! -name torch_shm_manager -delete
find "$site" \( -name '*.a' -o -name '*.pxd' -o -name '*.pyx' -o -name '*.pyi' \) -delete
# Symbols that only a debugger reads. Libraries in `*.libs` are left alone: they were renamed by a
# tool whose files strip may damage.
find "$site"/{torch,ray,zstandard,pyarrow} -type f -size +1M -print0 \
    | xargs -0 -r -n 1 strip --strip-unneeded 2>/dev/null || true
