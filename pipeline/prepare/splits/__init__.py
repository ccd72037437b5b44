"""Train, validation and test splits, sessions, and pairs of items in a session."""
