#!/usr/bin/env bash
# The head of a Ray cluster, in the foreground; further arguments go to it.
set -euo pipefail
. "$(dirname "$0")/settings.sh"
: "${RAY_AUTH_TOKEN:?set it to a secret, the same on every node: openssl rand -hex 32}"
exec "$bin/ray" start --head --block --disable-usage-stats \
    --port "${RAY_HEAD##*:}" --num-cpus "${RAY_CPUS:-1}" \
    --dashboard-host "${RAY_DASHBOARD_HOST:-0.0.0.0}" --dashboard-port "${RAY_JOBS##*:}" "$@"
