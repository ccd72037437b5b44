"""What the benchmarks share: command line, child processes, limits, peers, public data."""
