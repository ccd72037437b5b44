"""Faults at random on real processes, and a check of what must hold after each round.

python -m tests.storm --minutes 30
python -m tests.storm --seed 1234567 --rounds 1     the round of a seed again
"""
