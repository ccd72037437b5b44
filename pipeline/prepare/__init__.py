"""Data stages: DataFrame in, DataFrame out, on Sail or Apache Spark."""

import os

# gRPC, which both engines' clients load, runs handlers in the child of a fork, and they abort
# it at times before it has become a JVM: then Apache Spark does not start. It reads this once,
# when it is imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
