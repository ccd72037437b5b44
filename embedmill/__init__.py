"""Embedmill: from raw interaction logs to embeddings and a verified nearest-neighbour index.

    import embedmill

    run = embedmill.run("plays/*.csv.gz", user="account", item="track", time="played_at")
    run.neighbors("t1", k=5)
    embedmill.open("runs/plays").search(vectors, 10)

This is the front door; `embedmill.pipeline`, `embedmill.jobs` and `embedmill.schemas` are the house
behind it. Engines (Spark, Ray, torch, FAISS) are loaded when they are used, not by the import.
"""

from embedmill.front_door import Embeddings, Run, open, run
from embedmill.pipeline.errors import EmbedmillError

__all__ = ["Embeddings", "EmbedmillError", "Run", "__version__", "open", "run"]

__version__ = "0.1.0"
