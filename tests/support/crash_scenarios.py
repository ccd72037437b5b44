"""Commands that change files, each with a root to start from and what is whole at any moment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedmill.jobs.all import run_line
from embedmill.pipeline.config import parse
from embedmill.pipeline.errors import EmbedmillError
from embedmill.pipeline.formats.deltas import read_delta, write_delta
from embedmill.pipeline.store.publication import publish
from embedmill.pipeline.store.retention import plan_removal, remove
from embedmill.pipeline.store.run import Run, find_run, open_run, published
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.terminal import Terminal
from embedmill.schemas.run import CONFIG
from embedmill.schemas.stages import STAGES
from tests.support.worlds import PlantedWorld, config_tree, laid

__all__ = ["SCENARIOS", "SHARES", "Scenario", "contents", "line", "look"]

WORLD = PlantedWorld(users=12, items=8, clusters=2, events_per_user=4)
NIGHT: dict[str, Any] = {
    "vocab": {"previous": "published"},
    "train": {"objective": "spectral", "start": "published", "start_fallback": "cold"},
    "index": {"kind": "hnsw", "carry_over": 0.5},
}


def line(root: str, log: Path, name: str = "tiny", **sections: Any) -> Run:
    """A small run of the whole line, with a model that trains in one epoch."""
    small = {"partitions": 2, "name": name}
    tree = laid(
        config_tree(root, log),
        run=small,
        train={"objective": "softmax", "epochs": 1},
        index={"kind": "flat"},
    )
    first = sections.pop("first", None)
    tree = laid(tree, **sections)
    run = Run(parse(tree))
    run_line(run, first=first, rebuild=bool(first), terminal=Terminal(quiet=True))
    return run


@dataclass(frozen=True)
class Scenario:
    """A command, which may be called again, and the root it starts from.

    Attributes:
        prepare: fills an empty root; gets the root and a log.
        command: gets the same.
        undone: whether what was there before may be gone for readers while the command runs.
    """

    prepare: Callable[[str, Path], object]
    command: Callable[[str, Path], object]
    undone: bool = False


def _night(root: str, log: Path, name: str) -> Run:
    return line(root, log, name, **NIGHT)


def _two_nights(root: str, log: Path) -> None:
    for name in ("n0", "n1"):
        _night(root, log, name)


def _unpublished(root: str, log: Path) -> None:
    line(root, log, "old")
    line(root, log, "new", evaluate={"slices": 2})
    publish(open_run(f"{root}/old"), force=True)


def _collect(root: str, _log: Path) -> None:
    remove(plan_removal(root, keep=1, rollbacks=0))


def _delta(root: str, _log: Path) -> None:
    base, run = open_run(f"{root}/n0"), open_run(f"{root}/n1")
    write_delta(run, base, [], f"{root}/deltas/1")


SCENARIOS: dict[str, Scenario] = {
    "line": Scenario(lambda *_: None, line),
    "rebuild": Scenario(line, lambda root, log: line(root, log, first="events"), undone=True),
    "night": Scenario(
        lambda root, log: _night(root, log, "n0"), lambda root, log: _night(root, log, "n1")
    ),
    "publish": Scenario(_unpublished, lambda root, _: publish(open_run(f"{root}/new"), force=True)),
    "gc": Scenario(
        lambda root, log: [line(root, log, name) for name in ("a", "b")], _collect, undone=True
    ),
    "delta": Scenario(_two_nights, _delta),
}


def look(root: str) -> dict[str, str]:
    """What a reader finds, all of which must be whole: stages of runs, the published run, deltas.

    Raises:
        AssertionError: a file that a manifest names is missing or differs.
    """
    found = contents(root)
    try:
        run = find_run(root)
        for stage in STAGES:
            run.artifact(stage)
    except EmbedmillError:
        pass  # nothing is published, or it was built anew or deleted since: a sentence
    return found


def contents(root: str) -> dict[str, str]:
    """Content of each finished stage, delta and pointer, every file of which is whole."""
    found = {}
    for name in Storage(root).folders():
        storage = Storage(f"{root}/{name}")
        if storage.exists(CONFIG):
            run = open_run(storage.root)
            for stage in STAGES:
                artifact = run.find(stage)
                if artifact is not None:
                    assert list(artifact.verify()) == [], (name, stage)
                    found[f"{name}/{stage}"] = artifact.manifest.content
    if (pointer := published(root)) is not None:
        found["published"] = f"{pointer.run} {pointer.content}"
    if Storage(root).exists("deltas/1/manifest.json"):
        found["delta"] = str(read_delta(f"{root}/deltas/1")[0]["hash"])
    return found


# Scenario → how many tests share its points, so that each of them takes minutes.
SHARES = {"line": 4, "rebuild": 4, "night": 4, "gc": 2}
