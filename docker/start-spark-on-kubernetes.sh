#!/usr/bin/env bash
# The entrypoint of the image: Spark on Kubernetes starts `driver ...` and `executor`; any other command
# runs as it is.
#
# Spark's own image has such a script, PySpark's wheel has none. The arguments and variables are those
# that Spark 4.1 gives its pods.
set -euo pipefail
. "$(dirname "$0")/settings.sh"

spark_home() {
    SPARK_HOME=${SPARK_HOME:-$("$bin/python" -c 'import os, pyspark; print(os.path.dirname(pyspark.__file__))')}
    export SPARK_HOME
}

case ${1:-} in
driver)
    shift
    spark_home
    exec "$SPARK_HOME/bin/spark-submit" --deploy-mode client \
        --conf "spark.driver.bindAddress=${SPARK_DRIVER_BIND_ADDRESS:?}" \
        --conf "spark.executorEnv.SPARK_DRIVER_POD_IP=$SPARK_DRIVER_BIND_ADDRESS" "$@"
    ;;
executor)
    spark_home
    # Options of Java come as SPARK_JAVA_OPT_0, SPARK_JAVA_OPT_1 and so on.
    options=()
    for name in $(compgen -v SPARK_JAVA_OPT_ | sort -t_ -k4 -n); do
        options+=("${!name}")
    done
    exec "${JAVA_HOME:+$JAVA_HOME/bin/}java" "${options[@]}" \
        "-Xms$SPARK_EXECUTOR_MEMORY" "-Xmx$SPARK_EXECUTOR_MEMORY" \
        -cp "${SPARK_CONF_DIR:+$SPARK_CONF_DIR:}$SPARK_HOME/jars/*${SPARK_EXTRA_CLASSPATH:+:$SPARK_EXTRA_CLASSPATH}" \
        org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend \
        --driver-url "$SPARK_DRIVER_URL" --executor-id "$SPARK_EXECUTOR_ID" \
        --cores "$SPARK_EXECUTOR_CORES" --app-id "$SPARK_APPLICATION_ID" \
        --hostname "$SPARK_EXECUTOR_POD_IP" --resourceProfileId "$SPARK_RESOURCE_PROFILE_ID" \
        --podName "$SPARK_EXECUTOR_POD_NAME"
    ;;
*)
    exec "$@"
    ;;
esac
