# Sourced by the start scripts: where things are, unless the environment says otherwise.

# The environment that install-python.sh made.
EMBEDMILL_PREFIX=${EMBEDMILL_PREFIX:-/opt/embedmill}
bin=$EMBEDMILL_PREFIX/bin

# Spark's tasks run with the same Python and packages as the driver.
export PYSPARK_PYTHON=${PYSPARK_PYTHON:-$bin/python}
export PYSPARK_DRIVER_PYTHON=${PYSPARK_DRIVER_PYTHON:-$bin/python}
SPARK_MASTER=${SPARK_MASTER:-spark://spark-master:7077}

# A script's own folder stays off sys.path: jobs/ holds names such as index and report.
export PYTHONSAFEPATH=1

RAY_JOBS=${RAY_JOBS:-http://ray-head:8265}
RAY_HEAD=${RAY_HEAD:-ray-head:6379}
export RAY_USAGE_STATS_ENABLED=0
# A node that is told to stop has 10 s before Docker kills it; Ray would drain it for 30.
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=${RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S:-4}
# Nobody talks to this Ray without the token in RAY_AUTH_TOKEN.
export RAY_AUTH_MODE=${RAY_AUTH_MODE:-token}

spark_class() {
    SPARK_HOME=$("$bin/python" -c 'import os, pyspark; print(os.path.dirname(pyspark.__file__))')
    export SPARK_HOME SPARK_NO_DAEMONIZE=1
    exec "$SPARK_HOME/bin/spark-class" "$@"
}
