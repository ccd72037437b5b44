"""What the data is: a module for the artifact of each stage, and the manifest that seals it.

A module of a stage declares the Arrow schemas, the names of files, a model for each JSON file,
the conservation laws of the counters and the line that `embedmill status` prints.
"""
