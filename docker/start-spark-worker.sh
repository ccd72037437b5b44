#!/usr/bin/env bash
# A Spark standalone worker, in the foreground; further arguments go to it.
set -euo pipefail
. "$(dirname "$0")/settings.sh"
spark_class org.apache.spark.deploy.worker.Worker \
    --cores "${SPARK_CORES:-2}" --memory "${SPARK_MEMORY:-2g}" \
    --webui-port "${SPARK_UI_PORT:-8081}" --work-dir "${SPARK_WORK:-/tmp/spark-work}" \
    "$@" "$SPARK_MASTER"
