"""Where the stages run: one short file per stage, and `all.py`, the file to read first."""

import os

# Threads of OpenMP (torch, FAISS) that wait give their core away instead of spinning for long.
# Beside other work, spinning threads wait for each other: a step then takes twenty times as long.
# GNU's OpenMP, which torch has on Linux, spins for some microseconds first: small products one
# after the other are a quarter faster so. Both are read once, when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "3000")
# gRPC, which Spark's client and exporters of spans load, runs handlers in the child of a fork, and
# they abort it at times before it has become a JVM: then Apache Spark does not start. It reads
# this once, when it is imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
