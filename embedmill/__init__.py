"""Embedmill: from raw interaction logs to embeddings and a verified nearest-neighbour index."""

__version__ = "0.1.0"
