"""Embedding tables sharded over workers: lookup, placement, optimizers, checkpoints."""
