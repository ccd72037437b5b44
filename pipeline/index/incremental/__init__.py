"""Incremental index: a base that is kept, a delta of new items, tombstones of removed ones."""
