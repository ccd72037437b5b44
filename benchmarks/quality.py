"""Quality on a public set, through the whole line, beside published results.

    python benchmarks/quality.py SET [--objective NAME] [--dim D] [--untuned] [--both] [--regret]
        [--set section.key=value] [--keep FOLDER] [--json]

SET is one of `benchmarks/sets/*.toml`, or a path to such a file of your own: the log, its columns
and split, settings that were chosen on the validation part, and rows that others published. The
log is run from raw file to evaluated index by the command line, with the settings tuned for the
set's first objective, or for the one that --objective names. --untuned leaves the training's
settings as they come: what tuning adds is the difference. --regret runs both, and every other
objective that the set has settings for: regret is the best tuned figure less that of the
defaults.

Models of a ranking are trained anew on train and validation events, as papers do; --both adds a row
that was trained on train events alone. Where a set has folds, each is the test part once, by a run
of its own, and figures are means over the runs.

Prints a table; with --json one flat JSON object last.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.command_line import finish, parser_of
from harness.line import metrics, run
from harness.sets import PublicSet, load_set, set_names, write_config

Row = dict[str, float]
Flat = dict[str, float | int | str]

_LOWER_IS_BETTER = ("rmse", "mae")


@dataclass(frozen=True)
class Options:
    """What the command line asks for: a dimension (0: the set's), overrides, a folder."""

    dim: int
    sets: tuple[str, ...]
    root: Path


def measure(one: PublicSet, options: Options, objective: str, *, refit: bool = True) -> Flat:
    """Run the set, fold by fold where it has folds; returns its figures.

    Args:
        one: the set.
        options: of the command line.
        objective: whose tuned settings are taken; empty for the defaults.
        refit: whether the model is trained anew with the validation events.
    """
    raw = _with_folds(one, options.root) if one.take_turns else one.raw()
    stem = f"{one.name}-{objective or 'default'}-{'refit' if refit else 'train'}"
    found = {}
    for fold in one.folds or ("",):
        name = f"{stem}-{fold}" if fold else stem
        path = options.root / f"{name}.toml"
        write_config(path, one.tree(objective), raw, name)
        dim = [f"train.dim={options.dim}"] if options.dim else []
        fit = [f"train.refit={str(refit).lower()}"]
        run(path, [*fit, *held_out(one, fold), *dim, *options.sets], last="evaluate")
        found[fold] = metrics(str(options.root / name))
    settings = settings_of(options.root / name)
    flat = _of_run(one, found[""]) if not one.folds else _of_folds(one, found)
    return {**flat, "settings": settings}


def held_out(one: PublicSet, fold: str) -> list[str]:
    """Overrides by which one fold is the test part and the others train."""
    if not fold:
        return []
    train = [other for other in one.folds if other != fold]
    split = ['shards.split="given"', *(['events.split="fold"'] if one.take_turns else [])]
    return [*split, f"shards.given_train={json.dumps(train)}", f'shards.given_test="{fold}"']


def _of_run(one: PublicSet, found: Mapping[str, Any]) -> Flat:
    """Metrics, the same through the index, and seconds of one run."""
    names = (*one.metrics, *(f"through_index.{metric}" for metric in one.metrics))
    flat: Flat = {name: found[name] for name in names if name in found}
    timed = ("seconds.", "evaluate.seconds.", "train.", "valid.")
    flat |= {key: value for key, value in found.items() if key.startswith(timed)}
    return {**flat, "seconds": found["seconds.total"]}


def _of_folds(one: PublicSet, found: Mapping[str, Mapping[str, Any]]) -> Flat:
    """Figures of each fold, means of the metrics, and the sum of the seconds."""
    names = dict.fromkeys((*one.metrics, *(_LOWER_IS_BETTER if one.kind == "ratings" else ())))
    flat: Flat = {
        f"fold{fold}.{key}": of_fold[key]
        for fold, of_fold in found.items()
        for key in (*names, "seconds.total")
    }
    flat |= {name: sum(each[name] for each in found.values()) / len(found) for name in names}
    return {**flat, "seconds": sum(each["seconds.total"] for each in found.values())}


def settings_of(folder: Path) -> str:
    """The keys that shaped the run's model, as the resolved config has them."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return " ".join(
        f"{name}.{key}={json.dumps(value)}"
        for name in ("train", "export")
        for key, value in _flat(config[name]).items()
    )


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        nested = isinstance(value, Mapping)
        flat |= _flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


def _with_folds(one: PublicSet, root: Path) -> Path:
    """A copy of the log, a text file with a header, with a column `fold` in which lines rotate."""
    header, *lines = one.raw().read_text(encoding="utf-8").splitlines()
    between = "," if one.sections["events"].get("format") == "csv" else "\t"
    path = root / f"{one.name}-folds.txt"
    with path.open("w", encoding="utf-8") as out:
        out.write(f"{header}{between}fold\n")
        for number, row in enumerate(lines):
            out.write(f"{row}{between}{one.folds[number % len(one.folds)]}\n")
    return path


def regret_of(one: PublicSet, rows: Mapping[str, Flat]) -> Flat:
    """By metric: the default's figure, each tuned one, the best tuned, and the regret.

    Regret is how much better the best tuned figure is than the default's; below 0 the default
    is better than all that were tuned.

    Args:
        one: the set.
        rows: figures by objective, those of the defaults by "".
    """
    flat: Flat = {}
    for metric in one.metrics:
        values = {name: float(row[metric]) for name, row in rows.items()}
        default = values.pop("")
        sign = -1 if metric in _LOWER_IS_BETTER else 1
        best = max(values, key=lambda name: sign * values[name])
        flat[f"default.{metric}"] = default
        flat |= {f"tuned.{name}.{metric}": value for name, value in values.items()}
        flat |= {f"best.{metric}": values[best], f"best.{metric}.objective": best}
        flat[f"regret.{metric}"] = sign * (values[best] - default)
    for name, row in rows.items():
        flat[f"tuned.{name}.seconds" if name else "default.seconds"] = row["seconds"]
    return flat


def show(one: PublicSet, rows: Mapping[str, Flat], flat: Flat) -> None:
    """Ours and the published rows, by the first metric, what they took, the settings below."""
    first = one.metrics[0]
    ours = {title: {m: float(row[m]) for m in one.metrics} for title, row in rows.items()}
    every = sorted({**one.published, **ours}.items(), key=lambda row: row[1].get(first, 0.0))
    width = max(len(name) for name, _ in every) + 2
    print(f"{'on test':<{width}}" + "".join(f"{metric:>10}" for metric in one.metrics))
    for name, row in every:
        cells = "".join(f"{row[m]:10.4f}" if m in row else f"{'-':>10}" for m in one.metrics)
        print(f"{name:<{width}}{cells}{'   <--' if name in ours else ''}")
    print(f"\nfrom raw file to evaluated index: {float(flat['seconds']):.0f} s")
    for name, what in (("exact", "all scores"), ("through_index", "the index")):
        if (key := f"evaluate.seconds.{name}") in flat:
            print(f"evaluated with {what}: {float(flat[key]):.1f} s")
    if (key := f"through_index.{first}") in flat:
        found, exact = float(flat[key]), float(flat[first])
        print(f"{first} through the index: {found:.4f}, {1 - found / exact:.2%} less")
    for metric in one.metrics:
        if (key := f"regret.{metric}") in flat:
            best = flat[f"best.{metric}.objective"]
            print(f"regret of the defaults in {metric}: {float(flat[key]):.4f} (best: {best})")
    for setting in str(flat["settings"]).split():
        print(f"  {setting}")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("set", help=f"a path, or one of {', '.join(set_names())}")
    parser.add_argument("--objective", default="", help="whose tuned settings; the first if empty")
    parser.add_argument("--dim", type=int, default=0, help="dimension instead of the set's")
    parser.add_argument("--untuned", action="store_true", help="the defaults' training settings")
    parser.add_argument("--both", action="store_true", help="also trained on train alone")
    parser.add_argument("--regret", action="store_true", help="defaults beside all that is tuned")
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--keep", default="", help="folder for the runs; a temporary one if empty")
    args = parser.parse_args()
    one = load_set(args.set)
    if args.objective and args.objective not in one.tuned:
        parser.error(f"{one.name} has no settings for '{args.objective}', only {list(one.tuned)}")
    chosen = "" if args.untuned else args.objective or next(iter(one.tuned), "")
    with tempfile.TemporaryDirectory(prefix="embedmill-quality-") as temporary:
        options = Options(args.dim, tuple(args.sets), Path(args.keep or temporary))
        if args.regret:
            by_objective = {name: measure(one, options, name) for name in ("", *one.tuned)}
            flat = {**by_objective[chosen], **regret_of(one, by_objective)}
            rows = {f"ours, {name or 'defaults'}": row for name, row in by_objective.items()}
        else:
            flat = measure(one, options, chosen)
            rows = {"ours": flat}
        if args.both:
            train = measure(one, options, chosen, refit=False)
            rows["ours, on train alone"] = train
            flat = {**flat, **{f"train.{key}": v for key, v in train.items()}}
    show(one, rows, flat)
    finish(args, flat)


if __name__ == "__main__":
    main()
