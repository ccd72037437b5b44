"""The whole line on MovieLens-100K: quality beside baselines, index recall, seconds by stage.

    python benchmarks/line.py [--json]

Prints a table; with --json one flat JSON object last. Runs in a temporary folder.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from harness.command_line import finish, parser_of
from harness.line import metrics, run

EXAMPLES = Path(__file__).parents[1] / "examples"
SHOWN = {
    "movielens-100k": [
        "recall@10", "popularity.recall@10", "ndcg@10", "popularity.ndcg@10",
        "through_index.recall@10", "index.recall@10", "index.ms_per_query", "seconds.train",
        "seconds.total",
    ],
    "movielens-100k-ratings": ["rmse", "mae", "rmse.mean_baseline", "seconds.train",
                               "seconds.total"],
}  # fmt: skip


def measure(name: str, root: str) -> dict[str, float]:
    """Run an example to its end in `root`; returns its metrics."""
    run(EXAMPLES / f"{name}.toml", [f'run.root="{root}"'])
    return metrics(f"{root}/{name}")


def main() -> None:
    parser = parser_of(__doc__)
    args = parser.parse_args()
    flat: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="embedmill-bench-") as root:
        for name, keys in SHOWN.items():
            found = measure(name, root)
            flat |= {f"{name}.{key}": found[key] for key in keys}
    over = flat["movielens-100k.recall@10"] / flat["movielens-100k.popularity.recall@10"]
    flat["movielens-100k.recall@10_over_popularity"] = over
    width = max(map(len, flat))
    for key, value in flat.items():
        print(f"{key:<{width}}  {value:10.4f}")
    finish(args, flat)


if __name__ == "__main__":
    main()
