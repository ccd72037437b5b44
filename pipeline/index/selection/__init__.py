"""Choosing an index that keeps a promise: plans, trials, building, tuning, verifying."""
