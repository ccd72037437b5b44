#!/usr/bin/env bash
# Makes an environment with S3 servers, and runs tests/object_stores/check_stores.py.
# The first argument is the environment of embedmill with its extras; the second a Python.
set -euo pipefail
cd "$(dirname "$0")/../.."
prefix=${1:?the environment of embedmill} python=${2:-python3.11} env=.venv-stores
. tests/support/environment.sh
make_environment "$python" $env -r tests/object_stores/requirements.txt
export PYTHONPATH=$PWD
"$prefix/bin/python" tests/object_stores/check_stores.py $env/bin
