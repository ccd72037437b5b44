"""Stages on tasks: the same content from this process and from two others."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedmill.pipeline import evaluate, export, index
from embedmill.pipeline.evaluate import holdout
from embedmill.pipeline.export import vector_ranges
from embedmill.pipeline.index import open_index
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.task_pool import (
    LAUNCHERS,
    Launchers,
    TaskPool,
    TaskRequest,
    choose_launcher,
    processes,
)
from embedmill.schemas.files import PartFiles
from tests.support.runs import clusters


@pytest.fixture(scope="module")
def launchers() -> Iterator[Launchers]:
    """Two processes for all stages."""
    with processes(TaskRequest("tests", 2)) as pool:
        yield {**LAUNCHERS, "processes": _Lent(pool), "ray": _Lent(pool)}


@dataclasses.dataclass(frozen=True)
class _Lent:
    """A launcher that lends a pool out."""

    pool: TaskPool

    def __call__(self, request: TaskRequest) -> Any:
        return contextlib.nullcontext(self.pool)


def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task for each 16 rows, and for each partition."""
    files = {side: PartFiles(side, rows_per_file=16) for side in ("users", "items")}
    monkeypatch.setattr(vector_ranges, "FILES", files)
    monkeypatch.setattr(holdout, "GROUP_EVENTS", 1)


def stored(root: Path, launcher: str, **changes: Any) -> Run:
    made = dataclasses.replace(clusters(users=60, items=40), vocab_rows=16, **changes)
    return made.store(
        root,
        run={"partitions": 5},
        export={"launcher": launcher},
        index={"launcher": "ray" if launcher == "processes" else "inline"},
        evaluate={"launcher": launcher, "keep_users": True, "sampled_negatives": 5, "fold_in": 0.5},
    )


def built(run: Run, launchers: Launchers) -> dict[str, str]:
    """Content hashes of three stages."""
    export.build(run, run.writer("export"), Quiet(), launchers)
    index.build(run, run.writer("index"), Quiet(), launchers)
    evaluate.build(run, run.writer("evaluate"), Quiet(), open_index, launchers)
    return {
        stage: run.artifact(stage).manifest.content for stage in ("export", "index", "evaluate")
    }


@pytest.mark.parametrize("rating", [False, True])
def test_two_processes_write_what_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launchers: Launchers, rating: bool
) -> None:
    small_files(monkeypatch)
    model: dict[str, Any] = {"model": {"similarity": "dot"}}
    if rating:
        model = {"model": {"objective": "rating", "similarity": "dot", "mean": 3.5},
                 "user_bias": np.linspace(-1, 1, 60, dtype=np.float32),
                 "item_bias": np.linspace(-1, 1, 40, dtype=np.float32)}  # fmt: skip
    here = built(stored(tmp_path / "here", "inline", **model), LAUNCHERS)
    there = built(stored(tmp_path / "there", "processes", **model), launchers)
    assert there == here


@pytest.mark.exhaustive
@pytest.mark.ray
def test_ray_writes_what_this_process_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from embedmill.jobs.launchers import LAUNCHERS as ALL
    from embedmill.jobs.ray_tasks import ray_tasks

    small_files(monkeypatch)
    here = built(stored(tmp_path / "here", "inline"), LAUNCHERS)
    with ray_tasks(TaskRequest("tests", 2)) as pool:
        lent = _Lent(pool)
        run = stored(tmp_path / "there", "processes")
        there = built(run, {**ALL, "processes": lent, "ray": lent})
    assert there == here


def test_where_tasks_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert choose_launcher("processes", "/runs", large=False) == "processes"
    assert choose_launcher("auto", "/runs", large=False) == "inline"
    assert choose_launcher("auto", "memory://runs", large=True) == "inline"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert choose_launcher("auto", "/runs", large=True) == "ray"
    assert TaskRequest("index", todo="index.shard_bytes").lower_memory == (
        "Lower index.workers or index.shard_bytes"
    )
    command = TaskRequest("export", of_command=True)
    assert (command.name, command.lower_memory) == ("`embedmill export`", "Lower --workers")
