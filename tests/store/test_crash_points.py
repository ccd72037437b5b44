"""A run that ends at any change of a file: the same command brings the undisturbed content.

Every change of a rebuild of export, index and evaluate is a point: files that are removed, written
and created, those of the lease among them. At each the change is lost, or done and reported as
failed, and nothing later has an effect.
"""

from __future__ import annotations

import itertools
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from embedmill.jobs.all import job_of
from embedmill.jobs.launch import discard_from, driving, run_stage
from embedmill.pipeline.store import lease
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.terminal import Terminal
from tests.support.crash_points import OUTCOMES, World
from tests.support.crash_roots import copied, told_of, uncopied
from tests.support.runs import clusters, finished

REBUILT = ("export", "index", "evaluate")


def command(run: Run) -> None:
    """Build the stages anew, as `embedmill run --from export --to evaluate --rebuild`."""
    terminal = Terminal(quiet=True)
    with driving(run, terminal):
        discard_from(run, REBUILT[0])
        for stage in REBUILT:
            run_stage(run, job_of(stage), terminal, rebuild=True)


def contents(run: Run) -> dict[str, str]:
    """Contents of the stages that have finished, every file of which is whole."""
    found = {}
    for stage in REBUILT:
        artifact = run.find(stage)
        if artifact is not None:
            assert list(artifact.verify()) == []
            found[stage] = artifact.manifest.content
    return found


@dataclass
class Started:
    """Copies of a run with finished stages, each in a root of its own."""

    start: Run

    def copy(self) -> Run:
        config = self.start.config
        root = copied(config.run.root)
        return Run(config.model_copy(update={"run": config.run.model_copy(update={"root": root})}))


@pytest.fixture(params=["local", "objects"])
def started(request: pytest.FixtureRequest, tmp_path: Path) -> Started:
    return Started(finished(clusters(), uncopied(request.param, tmp_path), index={"kind": "flat"}))


def sweep(started: Started, monkeypatch: pytest.MonkeyPatch, stride: int) -> int:
    """Stop at every `stride`-th change, in each way; returns the number of points."""
    run, calm = started.copy(), World()
    with told_of(run.config.run.root, calm):
        command(run)
    undisturbed, changes = contents(run), len(calm.log)
    assert set(undisturbed) == set(REBUILT)
    # The process that stopped is this one, and would be found to run.
    monkeypatch.setattr(lease, "is_running", lambda *_: False)
    points = list(itertools.product(range(0, changes, stride), OUTCOMES))
    for stop, outcome in points:
        run, world = started.copy(), World(stop, outcome)
        with (
            told_of(run.config.run.root, world),
            suppress(Exception),
        ):  # what it says does not matter: it is gone
            command(run)
        assert world.stopped, (stop, outcome)
        at = (world.log[-1], outcome)
        assert contents(run).items() <= undisturbed.items(), at  # what a reader sees is whole
        command(run)
        assert contents(run) == undisturbed, at
    return len(points)


def test_crash_points(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    points = sweep(started, monkeypatch, 7)
    print(f"{points} points")
    assert points >= 10


@pytest.mark.exhaustive
def test_every_crash_point(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    points = sweep(started, monkeypatch, 1)
    print(f"{points} points")
    assert points >= 60
