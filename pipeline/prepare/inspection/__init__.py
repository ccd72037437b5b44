"""Looking at a log that has no config yet: its format, its columns, and a config for it."""
