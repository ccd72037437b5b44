#!/usr/bin/env bash
# Makes an environment with Dagster alone, and runs tests/dagster_assets/check_dagster.py in it.
# The first argument is the environment with embedmill; the second a Python 3.11.
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=$(cd "${1:?the environment with embedmill}/bin" && pwd) python=${2:-python3.11} env=.venv-dagster
if [ ! -e $env/.ready ]; then
  "$python" -m venv $env
  $env/bin/python -m pip install --quiet --disable-pip-version-check -r tests/dagster_assets/requirements.txt
  touch $env/.ready
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# As users install it: the wheel alone.
PYTHON=$bin/python docker/build-wheel.sh "$PWD" "$work/dist"
$env/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall "$work"/dist/*.whl
unset PYTHONPATH
export HOME=$work EMBEDMILL=$bin/embedmill
$env/bin/python tests/dagster_assets/check_dagster.py "$work"
