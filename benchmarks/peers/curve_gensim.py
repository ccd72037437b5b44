"""item2vec by gensim's Word2Vec after some of its epochs; prints points as JSON.

    curve_gensim.py FOLDER SETTINGS.json

FOLDER has users.npy and items.npy, the rows of each pair in order of the log: a user's items are a
sentence, a user's vector is the mean of its items' unit vectors. SETTINGS: users, items, dim,
threads, `epochs`, after which vectors are written to FOLDER/NN-users.npy and -items.npy, and keys
of Word2Vec. Seconds are from the pairs to the items' vectors.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import gensim
import numpy as np
from gensim.models import Word2Vec
from gensim.models.callbacks import CallbackAny2Vec
from scipy.sparse import csr_matrix

folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
size = (settings.pop("users"), settings.pop("items"))
dim, threads, epochs = (settings.pop(key) for key in ("dim", "threads", "epochs"))
points: list[dict[str, object]] = []
began = np.array([time.perf_counter(), time.process_time()])
users, items = np.load(folder / "users.npy"), np.load(folder / "items.npy")
order = np.argsort(users, kind="stable")
ends = np.cumsum(np.bincount(users, minlength=size[0]))[:-1]
corpus = [[str(item) for item in part] for part in np.split(items[order], ends) if len(part)]


class Snapshots(CallbackAny2Vec):  # type: ignore[misc]
    def __init__(self) -> None:
        self.done, self.writing = 0, np.zeros(2)

    def on_epoch_end(self, model: Word2Vec) -> None:
        self.done += 1
        if self.done not in epochs:
            return
        now = np.array([time.perf_counter(), time.process_time()])
        wall, cpu = now - began - self.writing
        write(model, self.done)
        name = f"{self.done:02d}"
        points.append({"at": self.done, "name": name, "seconds": wall, "cpu_seconds": cpu})
        self.writing += np.array([time.perf_counter(), time.process_time()]) - now


def write(model: Word2Vec, done: int) -> None:
    vectors = np.zeros((size[1], dim), np.float32)
    vectors[[int(word) for word in model.wv.index_to_key]] = model.wv.vectors
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    pairs = csr_matrix((np.ones(len(users), np.float32), (users, items)), shape=size)
    np.save(folder / f"{done:02d}-items.npy", vectors)
    np.save(folder / f"{done:02d}-users.npy", pairs @ vectors)


Word2Vec(
    corpus,
    sg=1,
    hs=0,
    min_count=1,
    vector_size=dim,
    workers=threads,
    epochs=max(epochs),
    seed=1,
    callbacks=[Snapshots()],
    **settings,
)
print(json.dumps({"points": points, "version": gensim.__version__}))
