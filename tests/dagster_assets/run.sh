#!/usr/bin/env bash
# Makes an environment with Dagster alone, and runs tests/dagster_assets/check_dagster.py in it.
# The first argument is the environment with embedmill; the second a Python 3.11.
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=$(cd "${1:?the environment with embedmill}/bin" && pwd) python=${2:-python3.11} env=.venv-dagster
. tests/support/environment.sh
make_environment "$python" $env -r tests/dagster_assets/requirements.txt
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
install_wheel $env "$work" "$bin"
unset PYTHONPATH
export HOME=$work EMBEDMILL=$bin/embedmill
$env/bin/python tests/dagster_assets/check_dagster.py "$work"
