"""The training log: step records, phase times, trackers."""
