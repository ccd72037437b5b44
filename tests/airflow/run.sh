#!/usr/bin/env bash
# Makes an environment with Airflow alone, and runs tests/airflow/check_airflow.py in it.
# The first argument is the environment with embedmill; the second a Python 3.11; others are parts of the
# check: watchers, nights, clusters, gate.
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=$(cd "${1:?the environment with embedmill}/bin" && pwd) python=${2:-python3.11} env=.venv-airflow
. tests/support/environment.sh
make_environment "$python" $env -r tests/airflow/requirements.txt
work=$(mktemp -d /tmp/af.XXXX) # Ray's sockets need short paths
trap '[ -n "${KEEP:-}" ] || rm -rf "$work"' EXIT
# As users install it: the wheel alone, with the entry point of the provider.
install_wheel $env "$work" "$bin"
unset PYTHONPATH
export HOME=$work EMBEDMILL=$bin/embedmill EMBEDMILL_PYTHON=$bin/python
export SPARK_SUBMIT=$bin/spark-submit PYTHONUNBUFFERED=1
$env/bin/python tests/airflow/check_airflow.py "$work" "${@:3}"
