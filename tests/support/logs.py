"""Logs with a run over each, small but unlike: what every engine must read alike."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.prepare_builds import Tree, tree, written


def messy(folder: Path) -> list[str]:
    """Two logs with repeats, ties, ids that need care and bad lines."""
    draw = random.Random(11)
    users = [f"u{n}" for n in range(40)] + ["ünï", "漢字", "a b", "🎬", 'q"']
    lines = [
        f"{draw.choice(users)}\ti{int(draw.random() ** 2 * 30)}\t{draw.randrange(400)}"
        f"\t{draw.choice(['1', '2.5', '-0.0', '1e3'])}"
        for _ in range(900)
    ]
    lines += ["bad", "\ti\t1\t1", "u\ti\tnever\t1", "u\ti\t1\tnan", "u\ti\t-1\t1"]
    draw.shuffle(lines)
    one = written(folder / "a.tsv", lines[:500])
    two = written(folder / "b.tsv", lines[400:])
    return [str(one), str(two)]


def last_tree(folder: Path, root: Path | str) -> Tree:
    return tree(
        root,
        messy(folder),
        vocab={"min_user_count": 3, "min_item_count": 4},
        shards={"split": "last", "valid": 2, "test": 2},
        events={"max_rejects": 0.05},
    )


def time_tree(folder: Path, root: Path | str) -> Tree:
    """A Parquet log of numbers, without weights, merged by pair, cut by time; pairs too."""
    draw = random.Random(12)
    columns = {
        "user_id": [draw.randrange(30) for _ in range(600)],
        "item_id": [draw.randrange(50) for _ in range(600)],
        "time": [draw.randrange(10**9) for _ in range(600)],
    }
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / "log.parquet", row_group_size=100)
    events = {"format": "parquet", "weight": "", "merge_by": "pair", "merge_weight": "count"}
    pairs = {"window": 0, "window_minutes": 10**6, "max_session": 9, "subsample": 0.01}
    shards = {"split": "time", "valid": 0.1, "test": 0.2, "pairs": {**pairs, "with_valid": True}}
    return tree(root, str(folder / "log.parquet"), events=events, shards=shards)


def random_tree(folder: Path, root: Path | str) -> Tree:
    """A log without times: the hash that splits and orders its events is of nulls too."""
    events = {"time": "", "max_rejects": 0.05}
    shards = {"split": "random", "valid": 0.2, "test": 0.2}
    return tree(root, messy(folder), events=events, shards=shards)


def signals_tree(folder: Path, root: Path | str) -> Tree:
    """A log of text under every rule: condition, types, decay, bots, thresholds, a cap."""
    draw = random.Random(13)
    header = "user_id\titem_id\ttime\trating\tevent\tcountry"
    lines = [
        f"u{int(draw.random() ** 2 * 30)}\ti{draw.randrange(40)}\t{draw.randrange(10**6)}"
        f"\t{draw.choice(['1', '2.5', '-1', '1e3'])}\t{draw.choice(['view', 'buy', 'remove'])}"
        f"\t{draw.choice(['DE', 'AT', 'ü', ''])}"
        for _ in range(1500)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in {"a": lines[:900], "b": [*lines[700:], "u\ti\t1\t1\tshare\tDE"]}.items():
        (folder / name).write_text("\n".join([header, *part]), encoding="utf-8")
    signals = {
        "type": "event", "types": {"view": 1, "buy": 5, "remove": 0}, "min_weight": 0,
        "max_user_events_per_day": 4, "bots": "day", "half_life_days": 2.5,
        "min_merged_weight": 0.7, "max_user_events": 6, "keep": "sample",
    }  # fmt: skip
    events = {"filter": "country <> 'AT' and rating < 999", "merge_by": "pair",
              "merge_weight": "sum", "drop_repeats": True, "signals": signals}  # fmt: skip
    paths = [str(folder / "a"), str(folder / "b")]
    return tree(root, paths, events=events, train={"weight_power": 1})
