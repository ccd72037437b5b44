"""EASE (Steck 2019, arXiv 1905.03375): item-to-item weights in closed form; prints JSON.

    curve_ease.py FOLDER SETTINGS.json

FOLDER has users.npy and items.npy, the rows of each pair; SETTINGS: l2, users, items. The weights
B = I - P / diag(P), P = (X'X + l2)^-1, are written to FOLDER/weights.npy, float32 [N, N]. Seconds
are from the pairs to B.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
from scipy.linalg.lapack import spotrf, spotri
from scipy.sparse import csr_matrix

folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
began = np.array([time.perf_counter(), time.process_time()])
users, items = np.load(folder / "users.npy"), np.load(folder / "items.npy")
shape = (settings["users"], settings["items"])
pairs = csr_matrix((np.ones(len(users), dtype=np.float32), (users, items)), shape=shape)
pairs.data[:] = 1
gram = np.asfortranarray((pairs.T @ pairs).toarray())
gram[np.diag_indices_from(gram)] += settings["l2"]
factor, failed = spotrf(gram, lower=1, overwrite_a=1)
assert not failed, "not positive definite"
inverse, failed = spotri(factor, lower=1, overwrite_c=1)  # its lower triangle
assert not failed
# The upper triangle from the lower one, block by block.
for start in range(0, len(inverse), 1024):
    end = min(start + 1024, len(inverse))
    inverse[start:end, end:] = inverse[end:, start:end].T
    block = np.tril(inverse[start:end, start:end])
    inverse[start:end, start:end] = block + np.tril(block, -1).T
weights = inverse / -np.diag(inverse)
weights[np.diag_indices_from(weights)] = 0
wall, cpu = np.array([time.perf_counter(), time.process_time()]) - began
np.save(folder / "weights.npy", weights)
point = {"at": 1, "name": "weights.npy", "seconds": wall, "cpu_seconds": cpu}
print(json.dumps({"points": [point], "version": np.__version__}))
