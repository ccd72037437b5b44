"""What is written down while training goes on: the step log, phase times, experiment trackers."""
