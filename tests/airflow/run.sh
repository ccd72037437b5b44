#!/usr/bin/env bash
# Makes an environment with Airflow alone, and runs tests/airflow/check_dag.py in it.
# The first argument is the command that tasks call; the second a Python 3.11.
set -euo pipefail
cd "$(dirname "$0")/../.."
command=${1:?the embedmill command} python=${2:-python3.11} env=.venv-airflow
if [ ! -e $env/.ready ]; then
  "$python" -m venv $env
  $env/bin/python -m pip install --quiet --disable-pip-version-check -r tests/airflow/requirements.txt
  touch $env/.ready
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export AIRFLOW_HOME=$work/airflow AIRFLOW__CORE__LOAD_EXAMPLES=False AIRFLOW__CORE__UNIT_TEST_MODE=False
export AIRFLOW__CORE__DAGS_FOLDER=$work/dags EMBEDMILL_COMMAND=$command PYTHONPATH=$PWD
mkdir -p "$work/dags"
cp examples/schedules/airflow.py "$work/dags/plays.py"
$env/bin/airflow db migrate > "$work/migrate.log" 2>&1 || { cat "$work/migrate.log"; exit 1; }
$env/bin/python tests/airflow/check_dag.py "$work"
