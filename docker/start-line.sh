#!/usr/bin/env bash
# The line on the two clusters: start-line.sh CONFIG [--set section.key=value ...]
#
# Data stages by spark-submit, train as a Ray job, the rest here. CONFIG and run.root must be
# seen under one path by every node. A stage that has finished is skipped, so a line that was
# stopped goes on when it is started again.
set -euo pipefail
. "$(dirname "$0")/settings.sh"
config=${1:?the config of the run}
shift

jobs=$("$bin/python" -c 'import os, embedmill.jobs as jobs; print(os.path.dirname(jobs.__file__))')
for stage in events vocab shards; do
    "$bin/spark-submit" --master "$SPARK_MASTER" --name "embedmill $stage" \
        --conf spark.sql.session.timeZone=UTC --conf spark.ui.enabled=false \
        --conf "spark.sql.shuffle.partitions=${SPARK_SHUFFLE:-32}" \
        --conf spark.executorEnv.PYTHONSAFEPATH=1 \
        "$jobs/$stage.py" "$config" "$@"
done
"$bin/ray" job submit --address "$RAY_JOBS" -- "$bin/python" -m embedmill.jobs.train "$config" "$@"
"$bin/embedmill" run "$config" --from export "$@"
