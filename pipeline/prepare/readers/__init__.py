"""Readers of source formats: raw files in, batches of parsed records out."""
