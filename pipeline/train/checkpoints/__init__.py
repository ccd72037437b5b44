"""Checkpoints of a training, and the files that hold one partition each."""
