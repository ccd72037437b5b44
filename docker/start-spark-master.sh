#!/usr/bin/env bash
# A Spark standalone master, in the foreground; further arguments go to it.
set -euo pipefail
. "$(dirname "$0")/settings.sh"
# Jobs come by spark-submit alone: the REST server would take them from anyone who reaches it.
export SPARK_MASTER_OPTS="-Dspark.master.rest.enabled=false ${SPARK_MASTER_OPTS:-}"
spark_class org.apache.spark.deploy.master.Master \
    --host "${SPARK_HOST:-$(hostname)}" --port "${SPARK_PORT:-7077}" \
    --webui-port "${SPARK_UI_PORT:-8080}" "$@"
