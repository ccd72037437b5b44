"""Sharded index: several FAISS files built by tasks, each over some of the items, one search."""
