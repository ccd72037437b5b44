#!/usr/bin/env bash
# Makes an environment with Chroma, Redis, MLflow and a DuckDB with vss over that of the tests, and runs
# what needs them.
# The first argument is a Python with the packages of `make test`.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${1:?a Python with the packages of make test} env=.venv-serving
if [ ! -e $env/.ready ]; then
  "$python" -m venv $env
  site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  echo "$site" > "$($env/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/below.pth"
  $env/bin/python -m pip install --quiet --disable-pip-version-check -r tests/stores/requirements.txt
  $env/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --target $env/duckdb \
    duckdb==1.5.5 duckdb-extension-vss==1.5.5
  touch $env/.ready
fi
export DUCKDB_WITH_VSS=$PWD/$env/duckdb PYTHONPATH=$PWD
exec $env/bin/python -m pytest -n0 -q tests/observers/test_mlflow.py tests/stores \
  tests/formats/test_formats.py -k "chroma or redis or mlflow or older_duckdb or opensearch"
