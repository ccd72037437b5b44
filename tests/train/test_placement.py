"""Tables in mapped files: the same bytes as in memory, nothing left behind."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from embedmill.pipeline import train
from embedmill.pipeline.errors import ConfigError, MachineError
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.train.assembly import load_trainer
from embedmill.pipeline.train.checkpoints.checkpoint import Cursor
from embedmill.pipeline.train.resources.budget import split_memory
from embedmill.pipeline.train.tables.placement import (
    keep_in_memory,
    zeros_in_files,
    zeros_in_memory,
)
from tests.support.ranks import run_ranks
from tests.support.runs import planted

SETTINGS: dict[str, dict[str, Any]] = {
    "softmax": {"bias": True, "refit": True, "epochs": 2, "dim": 5},
    "rating": {"objective": "rating", "optimizer": "adam", "epochs": 2},
    "ials": {"objective": "ials", "epochs": 2},
    "spectral": {"objective": "spectral"},
}


def built(folder: Path, tables: str, **changes: Any) -> str:
    run = planted(folder, train={"tables": tables, **changes})
    train.build(run, run.writer("train"), Quiet())
    return run.artifact("train").manifest.content


@pytest.mark.parametrize("objective", SETTINGS)
def test_mapped_tables_train_the_same_bytes(objective: str, tmp_path: Path) -> None:
    contents = [
        built(tmp_path / tables, tables, **SETTINGS[objective]) for tables in ("memory", "mapped")
    ]
    assert contents[0] == contents[1]


def mapped_bytes(run: Run) -> tuple[int, int]:
    """Bytes of mapped files without a name, and of the tables of one rank."""
    trainer = load_trainer(
        train.WorkerTask.of(run, run.writer("train")), train.Group.current(), Cursor()
    )
    lines = Path("/proc/self/maps").read_text().splitlines()
    spans = [line.split()[0].split("-") for line in lines if "(deleted)" in line and "rw-s" in line]
    tables = trainer.model.users, trainer.model.items
    tensors = [t for table in tables for t in (table.weight, *table.state.values())]
    rows = sum(4096 * -(-t.numel() * 4 // 4096) for t in tensors)
    return sum(int(end, 16) - int(start, 16) for start, end in spans), rows


def test_weights_and_state_of_two_ranks_are_mapped(tmp_path: Path) -> None:
    run = planted(tmp_path, train={"tables": "mapped", "optimizer": "adam", "dim": 64})
    for mapped, rows in run_ranks(mapped_bytes, 2, tmp_path, run):
        assert mapped >= rows > 0
    assert not [p for p in (tmp_path / "tiny/train").rglob("*") if p.is_file()]


def test_auto_maps_what_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[str] = []
    for free, expected in ((1 << 50, "memory"), (1 << 20, "mapped")):
        monkeypatch.setattr("embedmill.pipeline.train.assembly.free_memory", lambda free=free: free)
        monkeypatch.setattr(
            "embedmill.pipeline.train.assembly.zeros_in_memory", _noting(chosen, "memory")
        )
        monkeypatch.setattr(
            "embedmill.pipeline.train.assembly.zeros_in_files", lambda _: _noting(chosen, "mapped")
        )
        run = planted(tmp_path / expected)
        load_trainer(train.WorkerTask.of(run, run.writer("train")), train.Group(), Cursor())
        assert set(chosen) == {expected}
        chosen.clear()


def _noting(chosen: list[str], name: str) -> Any:
    def place(rows: int, width: int) -> torch.Tensor:
        chosen.append(name)
        return zeros_in_memory(rows, width)

    return place


@pytest.fixture
def small_files() -> Iterator[None]:
    """Files of at most a megabyte, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files")
def test_a_full_disk_is_said_before_training(tmp_path: Path) -> None:
    assert zeros_in_files(tmp_path)(1 << 10, 64).shape == (1 << 10, 64)
    with pytest.raises(MachineError, match=r"no room for a table of 2\.6 GB\. .*train\.scratch"):
        zeros_in_files(tmp_path)(10_000_000, 64)
    assert os.listdir(tmp_path) == []


def test_a_scratch_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("x")
    run = planted(tmp_path, train={"tables": "mapped", "scratch": str(tmp_path / "there")})
    with pytest.raises(MachineError, match=r"there: .*train\.scratch"):
        train.build(run, run.writer("train"), Quiet())
    assert run.manifest("train") is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tables": "mapped", "device": "cuda"}, r"train\.tables: 'mapped' needs"),
        ({"scratch": "s3://bucket/x"}, r"train\.scratch: must be a folder on a local disk"),
        ({"tables": "disk"}, r"train\.tables: .*allowed: auto, memory, mapped"),
    ],
)
def test_keys_that_do_not_go_together(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        planted(tmp_path, train=changes)


def test_heads_are_held_in_memory_and_stay_one_tensor(tmp_path: Path) -> None:
    table = zeros_in_files(tmp_path)(1 << 10, 64)
    assert (
        keep_in_memory(table, [slice(0, 100), slice(500, 510), slice(1000, 1024)]) == (6 + 1) * 4096
    )
    names = _names_of(table)
    assert [bool(name) for name in names[:: 4096 // 256]][:8] == [False] * 6 + [True] * 2
    table.copy_(torch.arange(1 << 16).view(1 << 10, 64))
    assert torch.equal(table.view(-1), torch.arange(1 << 16).float())


def _names_of(table: torch.Tensor) -> list[str]:
    """The file behind each row, as the system knows it; empty for memory of no file."""
    spans = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(end, 16) for end in line.split()[0].split("-"))
        spans.append((first, last, "".join(line.split()[5:])))
    rows = range(table.data_ptr(), table.data_ptr() + table.numel() * 4, table.shape[1] * 4)
    return [next(name for first, last, name in spans if first <= at < last) for at in rows]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_rows_held_in_memory_do_not_change_the_tables(
    share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "embedmill.pipeline.train.resources.budget.Budget.memory_share", lambda *_: share
    )
    settings = {**SETTINGS["softmax"], "dim": 64}
    assert built(tmp_path / "a", "mapped", **settings) == built(
        tmp_path / "b", "memory", **settings
    )


def test_the_smaller_table_is_held_first() -> None:
    # 200 of 2,000 rows: 100 of the 500 items, 100 of the 1,500 users; or all of 50 items.
    assert split_memory(0.1, 1500, 500) == pytest.approx((100 / 1500, 100 / 500))
    assert split_memory(0.1, 50, 1950) == pytest.approx((1.0, 150 / 1950))
    assert split_memory(1.0, 1500, 500) == (1.0, 1.0)
    assert split_memory(0.0, 1500, 500) == (0.0, 0.0)
