#!/usr/bin/env bash
# A newcomer's afternoon, typed out: from pip install to three nights on Airflow, with logs and runs on S3
# and training on a Ray cluster of two nodes. Prints the transcript of docs/guides/afternoon.md again.
#
#   examples/afternoon/afternoon.sh WHEEL [FOLDER [install|nights]]
#
# WHEEL is what `python -m build --wheel` made, or `embedmill` once it is on an index. Everything is in FOLDER
# (/tmp/afternoon) and on loopback. What was started is stopped at the end.
set -euo pipefail
wheel=$(realpath "${1:?a wheel of embedmill}") folder=${2:-/tmp/afternoon} part=${3:-both}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$folder" && cd "$folder"
python=$("${PYTHON:-python3.11}" -c 'import sys; print(sys.executable)')
export HOME=$folder PIP_DISABLE_PIP_VERSION_CHECK=1
started=$(date +%s)
trap 'kill $(jobs -p) 2>/dev/null; wait 2>/dev/null' EXIT

tell() { # a command, and what it prints; Airflow's SQLite may be locked for a moment
    printf '\n$ %s\n' "$*" | sed "s#$here/../../##g; s#$here/##g; s#$wheel#dist/$(basename "$wheel")#g; s#$python#python3.11#g"
    for try in 1 2 3 4 5; do
        eval "$*" > said 2>&1 && break
        [ "$try" != 5 ] || { cat said; echo "failed: $*"; exit 1; }
        sleep 3
    done
    cat said
}
title() { printf '\n# %s\n' "$1"; }
took() { printf '\n# It took %d min %02d s.\n' $((($(date +%s) - started) / 60)) $((($(date +%s) - started) % 60)); }
until_() { # a command that succeeds in the end
    for _ in $(seq 600); do
        eval "$*" >/dev/null 2>&1 && return
        sleep 2
    done
    echo "never: $*"
    exit 1
}

if [ "$part" != nights ]; then
    rm -rf "$folder" && mkdir -p "$folder" && cd "$folder"
    title "Two environments: embedmill's, and Airflow's without any engine"
    tell "$python -m venv mill"
    tell "mill/bin/pip install --quiet --constraint $here/../../constraints.txt '$wheel[train,s3,jobs]'"
    tell "$python -m venv airflow"
    tell "airflow/bin/pip install --quiet --requirement $here/../../tests/airflow/requirements.txt"
    tell "airflow/bin/pip install --quiet --no-deps $wheel"
    tell "mill/bin/embedmill --version; airflow/bin/airflow version"
    tell "$python -m venv moto && moto/bin/pip install --quiet 'moto[server]'"
    took
fi
[ "$part" != install ] || exit 0

rm -rf logs a b airflow-home ./*.log
title "An S3 server in the place of a real one"
moto/bin/moto_server --host 127.0.0.1 --port 5055 > moto.log 2>&1 &
tell "export AWS_ENDPOINT_URL=http://127.0.0.1:5055 AWS_DEFAULT_REGION=us-east-1"
tell 'export AWS_ACCESS_KEY_ID=newcomer AWS_SECRET_ACCESS_KEY=$(openssl rand -hex 8)'
until_ "curl --fail --silent http://127.0.0.1:5055/moto-api/"
tell "$python $here/write_logs.py logs 2026-11-20 2026-11-21 2026-11-22"
tell "mill/bin/python -c \"import s3fs; s3 = s3fs.S3FileSystem(); s3.mkdir('mill'); s3.put('logs', 'mill/', recursive=True); print(s3.find('mill'))\""

title "A Ray cluster of two nodes, which wants a token"
tell 'export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$(openssl rand -hex 16) RAY_USAGE_STATS_ENABLED=0'
nodes="--num-cpus 1 --object-store-memory 100000000 --node-ip-address 127.0.0.1 --block"
mill/bin/ray start --head --port 6379 --dashboard-port 8265 --temp-dir "$folder/a" \
    --dashboard-agent-listen-port 52365 --include-dashboard true $nodes > head.log 2>&1 &
until_ "curl --fail --silent --header \"Authorization: Bearer \$RAY_AUTH_TOKEN\" http://127.0.0.1:8265/api/version"
mill/bin/ray start --address 127.0.0.1:6379 --temp-dir "$folder/b" \
    --dashboard-agent-listen-port 52366 $nodes > node.log 2>&1 &
until_ "mill/bin/ray status --address 127.0.0.1:6379 | grep -q '0.0/2.0 CPU'"
tell "mill/bin/ray status --address 127.0.0.1:6379 | grep -E 'node_|CPU'"

title "The config, and one night by hand up to its shards"
tell "cp $here/plays.toml . && cat plays.toml"
tell "mill/bin/embedmill run plays.toml --var ds=2026-11-20 --to shards"

title "Airflow"
export AIRFLOW_HOME=$folder/airflow-home AIRFLOW__CORE__LOAD_EXAMPLES=False AIRFLOW__API__PORT=8094
export AIRFLOW__CORE__EXECUTION_API_SERVER_URL=http://127.0.0.1:8094/execution/ AIRFLOW__API__WORKERS=1
export AIRFLOW__API__BASE_URL=http://127.0.0.1:8094 AIRFLOW__CORE__PARALLELISM=4
mkdir -p "$AIRFLOW_HOME/dags"
sed "s#/AFTERNOON#$folder#" "$here/plays_dag.py" > "$AIRFLOW_HOME/dags/plays_dag.py"
tell "cat airflow-home/dags/plays_dag.py"
PATH=$folder/airflow/bin:$PATH setsid airflow/bin/airflow standalone > airflow.log 2>&1 &
airflow=$!
trap 'kill -- -$airflow 2>/dev/null; kill $(jobs -p) 2>/dev/null; wait 2>/dev/null' EXIT
until_ "curl --fail --silent http://127.0.0.1:8094/api/v2/version"
until_ "$python -c \"import sqlite3; raise SystemExit(not sqlite3.connect('airflow-home/airflow.db').execute('select * from dag where dag_id = ?', ('plays',)).fetchall())\""
tell "airflow/bin/airflow dags unpause plays | grep plays"
tell "airflow/bin/airflow backfill create --dag-id plays --from-date 2026-11-20 --to-date 2026-11-22T23:00 --max-active-runs 1 | grep -o 'Created backfill Dag run'"
# By Airflow's database: cheaper than its commands, and the same.
until_ "$python -c \"import sqlite3; done = sqlite3.connect('airflow-home/airflow.db').execute('select count(*) from dag_run where run_type = ? and state = ?', ('backfill', 'success')); raise SystemExit(done.fetchone()[0] != 3)\""

title "Three nights later"
tell "airflow/bin/airflow dags list-runs plays --output plain | grep backfill"
tell "mill/bin/embedmill list s3://mill/runs"
tell "mill/bin/embedmill recommend s3://mill/runs --user listener-3 -k 5"
tell "mill/bin/embedmill diff s3://mill/runs/plays-2026-11-21 s3://mill/runs/plays-2026-11-22 | sed -n 1,12p"
took
