"""Nearest-neighbour libraries side by side: each in a process of its own, asked in turn."""
