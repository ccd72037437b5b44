"""Trials of objectives and settings, longer than those of objective `auto`, over a run's shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from embedmill.jobs.all import run_line
from embedmill.jobs.launch import driving
from embedmill.pipeline import train
from embedmill.pipeline.config import auto_tree, load, parse, tuned_tree
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.terminal import Terminal

__all__ = ["table", "tune", "tuned"]

_WIDTH, _SHOWN = 80, 20  # columns; trials in the table


def tune(
    path: Path,
    sets: Sequence[str],
    minutes: float,
    terminal: Terminal,
    given: Sequence[str] = (),
) -> tuple[train.Tuned, dict[str, Any]]:
    """Bring the run's stages up to shards up to date, and try objectives and settings.

    Args:
        path: the run's TOML.
        sets: overrides; they are in the tuned config, too.
        minutes: wall time of the trials.
        terminal: where progress is shown.
        given: values of variables, as of `load`.

    Returns:
        what was found, and the tree of the tuned TOML.

    Raises:
        EmbedmillError: as of `run_line`, `auto_tree` and `tune_settings`.
    """
    tree = auto_tree(path, sets, given)
    run = Run(parse(tree, where=str(path)))
    with driving(run, terminal):
        run_line(Run(load(path, sets, given=given)), last="shards", terminal=terminal)
        with terminal.stage("tune") as progress:
            train.check(run, progress)
            found = train.tune_settings(run, minutes, progress)
    return found, tuned(tree, found)


def tuned(tree: Mapping[str, Any], found: train.Tuned) -> dict[str, Any]:
    """The tree of the user's TOML with what was found."""
    best = found.chosen
    return tuned_tree(
        tree, best.objective, {"dim": best.dim, "epochs": found.epochs}, best.settings
    )


def table(found: train.Tuned) -> list[str]:
    """The trials for the user, the best first: lines of at most 80 columns."""
    lines = [f"{found.metric:>10} {'cost':>9} {'epochs':>6}  tried"]
    for trial in found.trials[:_SHOWN]:
        value = trial.metrics.get(found.metric)
        said = "diverged" if value is None else f"{value:.4f}"
        figures = f"{said:>10} {trial.cost:>9.3g} {trial.epochs:>6}  "
        tried = str(train.candidate_of(trial))
        lines += wrap(tried, _WIDTH, initial_indent=figures, subsequent_indent=" " * len(figures))
    if len(found.trials) > _SHOWN:
        lines.append(f"and {len(found.trials) - _SHOWN} more")
    spent = sum(trial.cost for trial in found.trials)
    lines.append(f"{len(found.trials)} trials, cost {spent:.3g}: about seconds of a core, counted")
    return lines
