"""Quality on a public set, through the whole line, beside published results.

    python benchmarks/quality.py SET [--dim D] [--untuned] [--both]
        [--set section.key=value] [--keep FOLDER] [--json]

The set's file is run from raw log to evaluated index by the command line, with the split that
its column gives. Epochs and settings were chosen on the validation part. gowalla: trained anew
on train and validation events, as the published rows were; --both adds a row that was trained on
train events alone. The others' authors chose epochs on the test part; we did not. With --untuned
the training's settings are the defaults: what tuning adds is the difference.

ml-1m, ml-100k: ratings in five folds, each a test part once, by a run of its own, the twentieth
part of the others validates, and the model is trained anew with it; RMSE is the mean of the
five. The folds of ml-1m are in its file; in ml-100k, line n of the log is in fold n mod 5 + 1.

Prints a table; with --json one flat JSON object last.
"""

from __future__ import annotations

import json
import tempfile
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.command_line import finish, parser_of
from harness.line import metrics, run
from harness.public_sets import path_of

from embedmill.pipeline.config import TrainConfig
from embedmill.pipeline.store.datasets import PREFIX, resolve

HERE = Path(__file__).parent

Row = dict[str, float]
Flat = dict[str, float | int | str]


@dataclass(frozen=True)
class Options:
    """What the command line asks for: a dimension (0: the config's), more keys, a folder.

    `untuned`: the training's settings as they come, whatever the set's TOML says; `both`: a
    row without the validation events too.
    """

    dim: int
    untuned: bool
    both: bool
    sets: tuple[str, ...]
    root: str


@dataclass(frozen=True)
class Set:
    """A public set: its file, the TOML of its run, and what others report on it.

    `measure` gives our rows by name and the flat object of `--json`; `metrics` are the columns.
    """

    file: str
    config: str
    metrics: tuple[str, ...]
    published: dict[str, Row]
    measure: Callable[[Set, Options], tuple[dict[str, Row], Flat]]


def line(config: Path, sets: Sequence[str], folder: str) -> Flat:
    """Run a TOML up to `evaluate`; returns the run's metrics."""
    run(config, sets, last="evaluate")
    return metrics(folder)


def tuned(one: Set, options: Options) -> list[str]:
    """Overrides of the set's TOML: its training keys by the defaults, and the dimension."""
    sets = []
    if options.untuned:
        chosen = _flat(tomllib.loads((HERE / f"{one.config}.toml").read_text("utf-8"))["train"])
        named = {"objective": chosen["objective"]} if "objective" in chosen else {}
        default = _flat(TrainConfig.model_validate(named).model_dump())
        sets = [f"train.{k}={json.dumps(default[k])}" for k in chosen if k != "objective"]
    if options.dim:
        sets.append(f"train.dim={options.dim}")
    return sets


def settings_of(folder: str) -> str:
    """The keys that shaped the run's model, as the resolved config has them."""
    config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    sections = {name: config[name] for name in ("train", "export")}
    return " ".join(
        f"{name}.{key}={json.dumps(value)}"
        for name, keys in sections.items()
        for key, value in _flat(keys).items()
    )


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        nested = isinstance(value, Mapping)
        flat |= _flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


def ranking(one: Set, options: Options) -> tuple[dict[str, Row], Flat]:
    """The epoch chosen on validation, then trained anew on train and validation."""
    rows, flat = {}, Flat()
    raw = path_of(one.file)
    for name, refit in (("train", False), ("refit", True)):
        if not (refit or options.both):
            continue
        run = f"{one.config}-{name}"
        sets = [
            f'events.paths="{raw}"', f'run.root="{options.root}"', f'run.name="{run}"',
            *tuned(one, options), f"train.refit={str(refit).lower()}", *options.sets,
        ]  # fmt: skip
        folder = f"{options.root}/{run}"
        found = line(HERE / f"{one.config}.toml", sets, folder)
        title = "ours, on train and valid" if refit else "ours, on train"
        rows[title] = {metric: float(found[metric]) for metric in one.metrics}
        prefix = "" if refit else "train."
        keys = (*one.metrics, *(f"through_index.{metric}" for metric in one.metrics))
        flat |= {f"{prefix}{key}": found[key] for key in keys}
        timed = ("seconds.", "evaluate.seconds.")
        flat |= {f"{prefix}{k}": v for k, v in found.items() if k.startswith(timed)}
        flat[f"{prefix}seconds"] = found["seconds.total"]
        flat["settings"] = settings_of(folder)
    return rows, flat


FOLDS = (1, 2, 3, 4, 5)


def ratings(one: Set, options: Options) -> tuple[dict[str, Row], Flat]:
    """Five runs, each with another fold held out; RMSE and MAE are means over them."""
    raw, flat = _with_folds(one.file, options.root), Flat()
    for fold in FOLDS:
        run = f"{one.config}-{fold}"
        train = [str(other) for other in FOLDS if other != fold]
        sets = [
            f'events.paths="{raw}"', f'run.root="{options.root}"', f'run.name="{run}"',
            f"shards.given_train={json.dumps(train)}", f'shards.given_test="{fold}"',
            *tuned(one, options), *options.sets,
        ]  # fmt: skip
        folder = f"{options.root}/{run}"
        found = line(HERE / f"{one.config}.toml", sets, folder)
        flat |= {f"fold{fold}.{key}": found[key] for key in ("rmse", "mae", "seconds.total")}
        flat["settings"] = settings_of(folder)
    for key, name in (("rmse", "rmse"), ("mae", "mae"), ("seconds", "seconds.total")):
        total = sum(float(flat[f"fold{fold}.{name}"]) for fold in FOLDS)
        flat[key] = total if key == "seconds" else total / len(FOLDS)
    folds = {f"  fold {fold}": {"rmse": float(flat[f"fold{fold}.rmse"])} for fold in FOLDS}
    return {"ours": {"rmse": float(flat["rmse"])}, **folds}, flat


def _with_folds(file: str, root: str) -> Path:
    """The raw log with a column `fold`: a set's own, or a copy in which lines take turns."""
    if not file.startswith(PREFIX):
        return path_of(file)
    lines = Path(resolve(file)).read_text(encoding="utf-8").splitlines()[1:]
    path = Path(root) / "ratings.tsv"
    with path.open("w", encoding="utf-8") as out:
        out.write("user_id\tmovie_id\trating\tfold\n")
        for number, row in enumerate(lines):
            user, movie, rating, _ = row.split("\t")
            out.write(f"{user}\t{movie}\t{rating}\t{FOLDS[number % 5]}\n")
    return path


SETS: dict[str, Set] = {
    "gowalla": Set(
        file="gowalla/checkins.tsv.gz",
        config="gowalla",
        metrics=("recall@20", "ndcg@20"),
        # Papers and BARS (openbenchmark.github.io/BARS), 64 dimensions, NGCF's split.
        published={
            "MostPop": {"recall@20": 0.0416, "ndcg@20": 0.0317},
            "Item2Vec": {"recall@20": 0.1326, "ndcg@20": 0.1057},
            "ItemCF": {"recall@20": 0.1570, "ndcg@20": 0.1214},
            "MF-BPR": {"recall@20": 0.1627, "ndcg@20": 0.1378},
            "YoutubeDNN (sampled softmax)": {"recall@20": 0.1754, "ndcg@20": 0.1473},
            "EASE": {"recall@20": 0.1765, "ndcg@20": 0.1467},
            "LightGCN": {"recall@20": 0.1830, "ndcg@20": 0.1554},
            "MF-CCL": {"recall@20": 0.1837, "ndcg@20": 0.1493},
            "GF-CF": {"recall@20": 0.1849, "ndcg@20": 0.1518},
            "UltraGCN": {"recall@20": 0.1862, "ndcg@20": 0.1580},
            "SimpleX": {"recall@20": 0.1872, "ndcg@20": 0.1557},
        },
        measure=ranking,
    ),
    # Surprise's README (NicolasHug/Surprise), five folds drawn at random, settings as they come.
    "ml-1m": Set(
        file="ml-1m/ratings.tsv.gz",
        config="movielens",
        metrics=("rmse",),
        published={
            "Surprise Baseline": {"rmse": 0.909},
            "Surprise SVD": {"rmse": 0.873},
            "Surprise SVD++": {"rmse": 0.862},
        },
        measure=ratings,
    ),
    "ml-100k": Set(
        file=f"{PREFIX}movielens-100k/ml-100k.inter",
        config="movielens",
        metrics=("rmse",),
        published={
            "Surprise Baseline": {"rmse": 0.944},
            "Surprise SVD": {"rmse": 0.934},
            "Surprise SVD++": {"rmse": 0.919},
        },
        measure=ratings,
    ),
}


def show(one: Set, rows: Mapping[str, Row], flat: Flat) -> None:
    """Ours and the published rows, by the first metric, the settings below."""
    first = one.metrics[0]
    every = sorted({**one.published, **rows}.items(), key=lambda row: row[1][first])
    width = max(len(name) for name, _ in every) + 2
    print(f"{'on test':<{width}}" + "".join(f"{metric:>10}" for metric in one.metrics))
    for name, row in every:
        cells = "".join(f"{row[metric]:10.4f}" for metric in one.metrics)
        print(f"{name:<{width}}{cells}{'   <--' if name in rows else ''}")
    print(f"\nfrom raw file to evaluated index: {float(flat['seconds']):.0f} s")
    for name, what in (("exact", "all scores"), ("through_index", "the index")):
        if (key := f"evaluate.seconds.{name}") in flat:
            print(f"evaluated with {what}: {float(flat[key]):.1f} s")
    if (key := f"through_index.{first}") in flat:
        found, exact = float(flat[key]), float(flat[first])
        print(f"{first} through the index: {found:.4f}, {1 - found / exact:.2%} less")
    for setting in str(flat["settings"]).split():
        print(f"  {setting}")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("set", choices=sorted(SETS))
    parser.add_argument("--dim", type=int, default=0, help="dimension instead of the config's")
    parser.add_argument("--untuned", action="store_true", help="the defaults' training settings")
    parser.add_argument("--both", action="store_true", help="also trained on train alone")
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--keep", default="", help="folder for the runs; a temporary one if empty")
    args = parser.parse_args()
    one = SETS[args.set]
    with tempfile.TemporaryDirectory(prefix="embedmill-quality-") as temporary:
        root = args.keep or temporary
        rows, flat = one.measure(
            one, Options(args.dim, args.untuned, args.both, tuple(args.sets), root)
        )
    show(one, rows, flat)
    finish(args, flat)


if __name__ == "__main__":
    main()
