#!/usr/bin/env bash
# A node of a Ray cluster, in the foreground; further arguments go to it.
set -euo pipefail
. "$(dirname "$0")/settings.sh"
: "${RAY_AUTH_TOKEN:?set it to the secret of the head}"
exec "$bin/ray" start --block --disable-usage-stats \
    --address "$RAY_HEAD" --num-cpus "${RAY_CPUS:-1}" \
    --node-manager-port "${RAY_NODE_PORT:-6380}" "$@"
