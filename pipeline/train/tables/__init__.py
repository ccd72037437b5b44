"""Embedding tables sharded over workers: lookup, initial values, placement, optimizers."""
