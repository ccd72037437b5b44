"""Where the stages run: one short file per stage, and `all.py`, the file to read first."""
