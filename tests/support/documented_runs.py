"""The runs and logs that the documentation's examples name, small and planted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from embedmill.jobs.all import run_line
from embedmill.pipeline.config import parse
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.terminal import Terminal
from tests.support.worlds import PlantedWorld, config_tree, laid

WORLD = PlantedWorld()
# Names that examples use; the other ids are those of the world.
_USERS = {"u0": "196", "u1": "22"}
_ITEMS = {"i0": "50"}
_TITLES = {"i0": "Star Wars (1977)", "i1": "Toy Story (1995)"}
_CATEGORIES = ("Sci-Fi", "Comedy", "Romance", "Drama")


def write_documented_runs(folder: Path) -> None:
    """Write `runs/movielens-100k`, published, and `plays.csv`, a log with a header."""
    events = [
        (_USERS.get(user, user), _ITEMS.get(item, item), time, weight)
        for user, item, time, weight in WORLD.events()
    ]
    log = folder / "log.tsv"
    rows = [f"{u}\t{i}\t{t}\t{w}\n" for u, i, t, w in events]
    log.write_text("user_id\titem_id\ttime\trating\n" + "".join(rows), encoding="utf-8")
    rows = [f"{u},{i},{t}\n" for u, i, t, _ in events]
    (folder / "plays.csv").write_text("account,track,played_at\n" + "".join(rows), encoding="utf-8")
    run_line(Run(parse(_config(folder, log))), terminal=Terminal(quiet=True))


def _config(folder: Path, log: Path) -> dict[str, Any]:
    items = folder / "items.tsv"
    lines = ["item_id\ttitle\tcategories"]
    for number in range(WORLD.items):
        item = f"i{number}"
        title = _TITLES.get(item, f"Film {number} (1990)")
        category = _CATEGORIES[number % len(_CATEGORIES)]
        lines.append(f"{_ITEMS.get(item, item)}\t{title}\t{category}")
    items.write_text("\n".join(lines) + "\n", encoding="utf-8")
    tree = config_tree(folder / "runs", log, name="movielens-100k")
    tree["events"]["items"] = {"paths": str(items), "categories": "categories"}
    return laid(tree, train={"epochs": 12, "learning_rate": 0.3})
