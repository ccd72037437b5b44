"""`implicit`'s AlternatingLeastSquares after some of its iterations; prints points as JSON.

    curve_implicit.py FOLDER SETTINGS.json

FOLDER has users.npy and items.npy, the rows of each pair. SETTINGS: users, items, dim,
regularization, alpha, threads, and `iterations`, after which factors are
written to FOLDER/NN-users.npy and NN-items.npy. Seconds are from the pairs to the factors; writing
them is in none.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import implicit
import numpy as np
from scipy.sparse import csr_matrix

folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
points: list[dict[str, object]] = []
writing = np.zeros(2)
began = np.array([time.perf_counter(), time.process_time()])
users, items = np.load(folder / "users.npy"), np.load(folder / "items.npy")
shape = (settings["users"], settings["items"])
pairs = csr_matrix((np.ones(len(users), dtype=np.float32), (users, items)), shape=shape)
pairs.data[:] = 1
model = implicit.als.AlternatingLeastSquares(
    factors=settings["dim"],
    iterations=max(settings["iterations"]),
    num_threads=settings["threads"],
    regularization=settings["regularization"],
    alpha=settings["alpha"],
    random_state=1,
)


def write(iteration: int, *_: object) -> None:
    global writing
    done = np.array([time.perf_counter(), time.process_time()])
    number = iteration + 1
    if number not in settings["iterations"]:
        return
    wall, cpu = done - began - writing
    np.save(folder / f"{number:02d}-users.npy", model.user_factors)
    np.save(folder / f"{number:02d}-items.npy", model.item_factors)
    points.append({"at": number, "name": f"{number:02d}", "seconds": wall, "cpu_seconds": cpu})
    writing = writing + np.array([time.perf_counter(), time.process_time()]) - done


model.fit(pairs, show_progress=False, callback=write)
print(json.dumps({"points": points, "version": implicit.__version__}))
