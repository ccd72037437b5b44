"""`implicit`'s AlternatingLeastSquares on pairs of rows; prints its seconds as JSON.

    als_implicit.py FOLDER dim iterations threads regularization alpha

FOLDER has users.npy and items.npy, the rows of each pair; user_factors.npy and
item_factors.npy are written there. The seconds are those of `fit`.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import implicit
import numpy as np
from scipy.sparse import csr_matrix

folder, dim, iterations, threads = Path(sys.argv[1]), *map(int, sys.argv[2:5])
users, items = np.load(folder / "users.npy"), np.load(folder / "items.npy")
pairs = csr_matrix((np.ones(len(users), dtype=np.float32), (users, items)))
model = implicit.als.AlternatingLeastSquares(
    factors=dim,
    iterations=iterations,
    num_threads=threads,
    regularization=float(sys.argv[5]),
    alpha=float(sys.argv[6]),
    random_state=1,
)
began = time.perf_counter()
model.fit(pairs, show_progress=False)
seconds = time.perf_counter() - began
np.save(folder / "user_factors.npy", model.user_factors)
np.save(folder / "item_factors.npy", model.item_factors)
print(json.dumps({"seconds": seconds, "version": implicit.__version__}))
