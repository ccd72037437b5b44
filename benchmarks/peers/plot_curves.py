"""Curves of Recall@20 over seconds as a PNG.

    plot_curves.py CURVES.json OUT.png

CURVES: title, least (the figure that counts as reached), and points by method, each with seconds,
cpu_seconds and recall.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

curves = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
figure, axes = plt.subplots(2, 2, figsize=(12, 9), sharey="row", constrained_layout=True)
for row, split in enumerate(("test", "valid")):
    for ax, (key, label) in zip(
        axes[row], (("seconds", "wall seconds"), ("cpu_seconds", "CPU-seconds")), strict=True
    ):
        for name, points in curves["points"].items():
            ordered = sorted(points, key=lambda point: point[key])
            at, recall = ([p[k] for p in ordered] for k in (key, f"{split}.recall@20"))
            ax.plot(at, recall, marker="o", label=name)
        if split == "test":
            ax.axhline(curves["least"], color="grey", linestyle=":", label=".95 of the best")
        ax.set_xscale("log")
        ax.set_xlabel(f"{label} from shards")
        ax.set_ylabel(f"Recall@20 on {split}")
axes[0][0].legend()
figure.suptitle(curves["title"])
figure.savefig(sys.argv[2], dpi=120)
print(json.dumps({"path": sys.argv[2]}))
