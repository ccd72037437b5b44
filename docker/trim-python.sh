#!/usr/bin/env bash
# Make an environment smaller: trim-python.sh PREFIX [DISTRIBUTION ...]
#
# Removes the distributions named, then pip, tests, headers and what only builds of C++ need, and
# writes what is left as PREFIX/sbom.json (CycloneDX). As root, with binutils for `strip`.
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
rm -rf "$site"/torch/{test,share} "$site"/ray/{jars,cpp,rllib,llm}
rm -f "$site"/torch/lib/lib{torchbind_test,jitbackend_test,backend_with_compiler,aoti_custom_ops}.so
rm -f "$site"/pyarrow/{libarrow_flight,libarrow_python_flight,_flight,_substrait}.*
# Names of a library that only a linker looks for; in a wheel each is a copy.
rm -f "$site"/pyarrow/libarrow_python*.so{,.*.*.*}
find "$site/torch/bin" -type f ! -name torch_shm_manager -delete
find "$site" -type f \( -name '*.a' -o -name '*.pxd' -o -name '*.pyx' -o -name '*.pyi' -o -name '*.map' \
    -o -name '*.h' -o -name '*.cpp' -o -name '*.cc' -o -name '*.proto' \) -delete
# What pip removes a package by.
rm -f "$site"/*.dist-info/RECORD
# Of the models of all services of AWS, those that a store's client loads.
find "$site/botocore/data" -mindepth 1 -maxdepth 1 -type d \
    ! -name s3 ! -name 'sso*' ! -name sts -exec rm -rf {} +
# Symbols that only a debugger reads. Libraries in `*.libs` are left alone: they were renamed by a
# tool whose files strip may damage.
find "$site"/{torch,ray,zstandard,pyarrow,cryptography,rpds} -type f -size +1M -print0 \
    | xargs -0 -r -n 1 strip --strip-unneeded 2>/dev/null || true

# Compiled files of what a node imports, which starts faster by them, and of nothing else.
find "$site" -name __pycache__ -prune -exec rm -rf {} +
"$prefix/bin/python" -P - <<'PYTHON'
from importlib import import_module

for name in (
    *(f"embedmill.jobs.{stage}" for stage in ("events", "train", "index", "evaluate", "report")),
    *("embedmill.jobs.cli", "embedmill.jobs.ray_training"),
    *("ray.scripts.scripts", "ray.dashboard.dashboard", "ray.dashboard.head"),
    *("ray.train.torch", "torch._dynamo", "s3fs", "gcsfs", "adlfs"),
    *("pyspark.worker", "pyspark.sql.connect.session"),
):
    try:
        import_module(name)
    except ModuleNotFoundError as absent:  # `ray` has no PySpark
        if not name.startswith(("pyspark", "embedmill.jobs.events")):
            raise
        print(f"not compiled: {name}: {absent}")
PYTHON
