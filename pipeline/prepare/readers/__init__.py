"""Readers of source formats: slices of raw files in, batches of parsed records out."""
