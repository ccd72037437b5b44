#!/usr/bin/env bash
# Makes an environment with Prefect alone, and runs tests/prefect/check_prefect.py in it.
# The first argument is the environment with embedmill; the second a Python 3.11.
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=$(cd "${1:?the environment with embedmill}/bin" && pwd) python=${2:-python3.11} env=.venv-prefect
. tests/support/environment.sh
make_environment "$python" $env -r tests/prefect/requirements.txt
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HOME=$work PREFECT_HOME=$work/prefect DO_NOT_TRACK=1 PREFECT_SERVER_ANALYTICS_ENABLED=false
export PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS=120 EMBEDMILL_PAUSE=1 EMBEDMILL=$bin/embedmill
$env/bin/python tests/prefect/check_prefect.py "$work"
