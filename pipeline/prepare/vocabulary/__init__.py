"""Vocabularies: counts, row numbers, base and incremental vocabularies."""
