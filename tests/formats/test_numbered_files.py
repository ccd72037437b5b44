"""Formats of several files: the same from this process and from two others."""

from __future__ import annotations

import contextlib
import dataclasses
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedmill.pipeline.export import vector_ranges
from embedmill.pipeline.formats import (
    FORMATS,
    SIDES,
    ExportOptions,
    bulk_imports,
    documents,
    vector_table,
    write,
)
from embedmill.pipeline.formats import writer as format_writer
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.task_pool import (
    LAUNCHERS,
    Launcher,
    TaskPool,
    TaskRequest,
    inline,
    processes,
)
from embedmill.pipeline.views.vectors import Vectors
from embedmill.schemas.files import PartFiles
from tests.support.format_loaders import READERS
from tests.support.runs import clusters, finished

NAMES = [name for name, format_ in FORMATS.items() if format_.files]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Exported in files of 8 rows; some have fewer live ones, and one of them none."""
    retired = {"u3", *(f"i{i}" for i in range(8, 16))}
    world = dataclasses.replace(
        clusters(users=30, items=50), vocab_rows=8, retired=frozenset(retired),
        titles=[f"Title\t{i}\nof \\ it" for i in range(50)],
        categories=[["one", "two\ttabs"] if i % 2 else [] for i in range(50)],
    )  # fmt: skip
    files = {side: PartFiles(side, rows_per_file=8) for side in SIDES}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector_ranges, "FILES", files)
        return finished(world, tmp_path_factory.mktemp("runs"), index={"kind": "flat"})


def written(run: Run, out: Path, name: str, workers: int) -> dict[str, Any]:
    return write(run, ExportOptions(name, workers=workers), str(out), Quiet())


@pytest.fixture(scope="module")
def two_processes() -> Iterator[None]:
    """Lent to all calls: they take seconds to start."""
    with processes(TaskRequest("tests", 2)) as pool, pytest.MonkeyPatch.context() as patch:
        lent = {**LAUNCHERS, "processes": lambda request: contextlib.nullcontext(pool)}
        patch.setattr(format_writer, "LAUNCHERS", lent)
        yield


@pytest.mark.usefixtures("two_processes")
@pytest.mark.parametrize("name", NAMES)
def test_two_processes_write_what_one_does(run: Run, tmp_path: Path, name: str) -> None:
    here, there = (written(run, tmp_path / f"{n}", name, n) for n in (1, 2))
    assert there == here
    assert sum("00003" in file["path"] for file in here["files"]) == 2


def test_where_files_are_written(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never on Ray: the folder is one of this machine."""
    asked: list[tuple[str, int]] = []

    def launcher(name: str) -> Launcher:
        def start(request: TaskRequest) -> AbstractContextManager[TaskPool]:
            asked.append((name, request.workers))
            return inline(request)

        return start

    monkeypatch.setattr(format_writer, "LAUNCHERS", {name: launcher(name) for name in LAUNCHERS})
    monkeypatch.setattr(format_writer, "usable_cores", lambda: 3)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    written(run, tmp_path / "few", "vertex", 0)
    monkeypatch.setattr(format_writer, "_LARGE", 0)
    written(run, tmp_path / "many", "vertex", 0)
    monkeypatch.setattr(format_writer, "free_memory", lambda: 1 << 29)
    written(run, tmp_path / "little memory", "vertex", 0)
    written(run, tmp_path / "asked for", "vertex", 4)
    assert asked == [("inline", 1), ("processes", 3), ("inline", 1), ("processes", 4)]


@pytest.mark.parametrize("name", NAMES)
def test_numbers_go_on_from_file_to_file(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Three vectors a file: a file of the export with 8 becomes three, the last with two."""
    for module in (bulk_imports, documents):
        monkeypatch.setattr(module, "NUMBERS", 3 * 8)
    asked: list[weakref.ref[Any]] = []
    block = vector_table.VectorTable.block

    def watched(table: vector_table.VectorTable, file: int) -> vector_table.NumberBlock:
        assert not any(one() for one in asked), "an earlier file is still in memory"
        found = block(table, file)
        asked.append(weakref.ref(found))
        return found

    monkeypatch.setattr(vector_table.VectorTable, "block", watched)
    written(run, tmp_path / "out", name, 1)
    for side in SIDES:
        vectors = Vectors.of(run.artifact("export"), side)
        live = np.flatnonzero(vectors.live())
        ids, vector_ND = READERS[name](tmp_path / "out", side)
        assert ids == vectors.vocabulary.ids(live)
        assert np.array_equal(np.asarray(vector_ND, np.float32), vectors.gather(live))
