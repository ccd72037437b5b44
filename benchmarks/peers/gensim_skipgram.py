"""Trains gensim's Word2Vec on a file of sequences, a line each; writes vectors in order of row.

    python gensim_skipgram.py SEQUENCES VECTORS.npy ROWS SETTINGS.json

Prints one JSON object: seconds of the vocabulary and the training.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
from gensim.models import Word2Vec

sequences, out, rows, settings = sys.argv[1:]
with open(sequences, encoding="utf-8") as lines:
    corpus = [line.split() for line in lines]
begin = time.perf_counter()
# Skip-gram with negative sampling; every item has a vector, however rare.
model = Word2Vec(corpus, sg=1, hs=0, min_count=1, **json.loads(settings))
seconds = time.perf_counter() - begin
vectors = np.zeros((int(rows), model.wv.vector_size), np.float32)
for row in range(len(vectors)):
    if str(row) in model.wv:
        vectors[row] = model.wv[str(row)]
np.save(out, vectors)
print(json.dumps({"seconds": seconds, "loss": model.get_latest_training_loss()}))
