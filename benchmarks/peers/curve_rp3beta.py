"""RP3beta (Paudel et al. 2017): walks of three steps, popular items ranked lower; prints JSON.

    curve_rp3beta.py FOLDER SETTINGS.json

FOLDER has users.npy and items.npy, the rows of each pair; SETTINGS: alpha, beta, neighbours, users,
items. W = (D_i^-1 X')^alpha (D_u^-1 X)^alpha D_i^-beta without its diagonal; the greatest
`neighbours` weights of each row are kept and written to FOLDER/weights.npz, [N, N]. Seconds are
from the pairs to W.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix, diags, save_npz, vstack

STEP = 1024  # items whose weights are in memory at once, before the smaller ones are dropped


def main() -> None:
    folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    began = np.array([time.perf_counter(), time.process_time()])
    users, items = np.load(folder / "users.npy"), np.load(folder / "items.npy")
    shape = (settings["users"], settings["items"])
    pairs = csr_matrix((np.ones(len(users), dtype=np.float32), (users, items)), shape=shape)
    pairs.data[:] = 1
    user_degree, item_degree = (np.asarray(pairs.sum(axis=a)).ravel() for a in (1, 0))
    to_users = (diags(power(item_degree, -1)) @ pairs.T).tocsr().power(settings["alpha"])
    to_items = (diags(power(user_degree, -1)) @ pairs).tocsr().power(settings["alpha"])
    to_items = (to_items @ diags(power(item_degree, -settings["beta"]))).tocsr()
    starts = range(0, shape[1], STEP)
    parts = [greatest(to_users[s : s + STEP] @ to_items, s, settings) for s in starts]
    weights = vstack(parts, format="csr").astype(np.float32)
    wall, cpu = np.array([time.perf_counter(), time.process_time()]) - began
    save_npz(folder / "weights.npz", weights, compressed=False)
    point = {"at": 1, "name": "weights.npz", "seconds": wall, "cpu_seconds": cpu}
    print(json.dumps({"points": [point], "version": np.__version__}))


def power(degree: np.ndarray, exponent: float) -> np.ndarray:
    """degree ** exponent, 0 where the degree is 0."""
    return np.where(degree > 0, np.maximum(degree, 1.0) ** exponent, 0)


def greatest(part: csr_matrix, start: int, settings: dict[str, float]) -> csr_matrix:
    """Rows of W from `start` on, without the diagonal; the greatest weights of each."""
    part = part.tocsr()
    row = np.repeat(np.arange(part.shape[0]), np.diff(part.indptr))
    value = np.where(part.indices == row + start, 0, part.data)
    order = np.lexsort((-value, row))
    rank = np.arange(len(order)) - part.indptr[row[order]]
    kept = order[(rank < settings["neighbours"]) & (value[order] > 0)]
    return csr_matrix((value[kept], (row[kept], part.indices[kept])), shape=part.shape)


if __name__ == "__main__":
    main()
