"""Embedmill: from raw interaction logs to embeddings and a verified nearest-neighbour index."""
