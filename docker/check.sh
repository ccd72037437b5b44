#!/usr/bin/env bash
# What the containers do, outside of containers: check.sh [--install] CONFIG [--set ...]
#
# Starts a Spark master and worker and a Ray head and worker by the same scripts, on loopback
# and free ports, runs the line of CONFIG on them, and stops what it started. With --install
# the wheel is built and installed first, as in the images; otherwise EMBEDMILL_PREFIX (.venv)
# is used. CONFIG's run.root must be absolute.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
install=
if [ "${1:-}" = --install ]; then
    install=1
    shift
fi
config=$(realpath "${1:?the config of a run}")
shift

scratch=$(mktemp -d /tmp/mill-XXXXXX) # short: Ray's sockets live there
pids=()
stop() {
    status=$?
    trap - EXIT INT TERM
    for pid in "${pids[@]}"; do
        kill -TERM "$pid" 2>/dev/null || true
    done
    for pid in "${pids[@]}"; do
        for _ in $(seq 120); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$pid" 2>/dev/null || true
    done
    if [ "$status" != 0 ]; then
        tail -n 25 "$scratch"/*.log >&2 || true
    fi
    rm -rf "$scratch"
    exit "$status"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [ -n "$install" ]; then
    "$here/build-wheel.sh" "$root" "$scratch/dist"
    "$here/install-python.sh" "$scratch/prefix" "$scratch"/dist/embedmill-*.whl \
        "$root/constraints.txt"
    EMBEDMILL_PREFIX=$scratch/prefix
fi
export EMBEDMILL_PREFIX=${EMBEDMILL_PREFIX:-$root/.venv}
cd "$scratch" # as in a container, the source is not there

# A Ray of another's is neither used nor disturbed.
unset RAY_ADDRESS
export HOME=$scratch RAY_AUTH_TOKEN=${RAY_AUTH_TOKEN:-$(openssl rand -hex 32)}
export SPARK_LOCAL_IP=127.0.0.1 SPARK_HOST=127.0.0.1 SPARK_CORES=2 SPARK_MEMORY=1g
export SPARK_WORK=$scratch/work RAY_DASHBOARD_HOST=127.0.0.1
mapfile -t port < <("$EMBEDMILL_PREFIX/bin/python" - <<'PYTHON'
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(8)]
for one in held:
    print(one.getsockname()[1])
PYTHON
)
export SPARK_PORT=${port[0]} SPARK_MASTER=spark://127.0.0.1:${port[0]}
export RAY_HEAD=127.0.0.1:${port[1]} RAY_JOBS=http://127.0.0.1:${port[2]}

start() { # NAME COMMAND...
    local name=$1
    shift
    "$@" >"$scratch/$name.log" 2>&1 &
    pids+=($!)
}
await() { # NAME PORT
    for _ in $(seq 240); do
        "$here/healthy.sh" 127.0.0.1 "$2" && return
        kill -0 "${pids[-1]}" 2>/dev/null || break
        sleep 0.5
    done
    echo "check: $1 does not answer" >&2
    exit 1
}

SPARK_UI_PORT=${port[3]} start spark-master "$here/start-spark-master.sh"
await spark-master "$SPARK_PORT"
SPARK_UI_PORT=${port[4]} start spark-worker "$here/start-spark-worker.sh"
ray=(--node-ip-address 127.0.0.1 --object-store-memory 100000000)
start ray-head "$here/start-ray-head.sh" "${ray[@]}" --temp-dir "$scratch/a" \
    --dashboard-agent-listen-port "${port[5]}" --ray-client-server-port "${port[7]}"
await ray-head "${port[2]}"
RAY_NODE_PORT=0 start ray-worker "$here/start-ray-worker.sh" "${ray[@]}" --temp-dir "$scratch/b" \
    --dashboard-agent-listen-port "${port[6]}"

"$here/start-line.sh" "$config" "$@"
echo "check: the line is done"
