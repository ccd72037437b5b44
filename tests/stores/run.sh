#!/usr/bin/env bash
# Makes an environment with Chroma, Redis and MLflow over that of the tests, and runs what needs them.
# The first argument is a Python with the packages of `make test`.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${1:?a Python with the packages of make test} env=.venv-serving
if [ ! -e $env/.ready ]; then
  "$python" -m venv $env
  site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  echo "$site" > "$($env/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/below.pth"
  $env/bin/python -m pip install --quiet --disable-pip-version-check -r tests/stores/requirements.txt
  touch $env/.ready
fi
PYTHONPATH=$PWD exec $env/bin/python -m pytest -n0 -q tests/observers/test_mlflow.py tests/stores \
  tests/formats/test_formats.py -k "chroma or redis or mlflow"
