"""Rules on events: filters, signals, merging of duplicates, user limits."""
