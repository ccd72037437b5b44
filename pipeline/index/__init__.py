"""Nearest-neighbour indices behind one contract."""
