"""What a training needs: by hand, against what it takes, and refused where it does not fit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist

from embedmill.pipeline import train
from embedmill.pipeline.errors import MachineError
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.train.estimate import GivenSizes, estimate
from embedmill.pipeline.train.objectives import OBJECTIVES
from embedmill.pipeline.train.objectives.example_sources import ITEM_PAIRS
from embedmill.pipeline.train.plan import TrainingSize
from embedmill.pipeline.train.resources.available import FreeResources
from embedmill.pipeline.train.resources.budget import budget_of, choose_tables, size_of
from embedmill.pipeline.train.step import EpochSteps
from tests.support.ranks import run_ranks
from tests.support.runs import planted, store
from tests.support.worlds import config

ROOM = FreeResources(memory=1 << 50, run=1 << 50, scratch=1 << 50, one_disk=False)


def sized(tmp_path: Path, **changes: Any) -> Any:
    return config(
        tmp_path,
        "log.tsv",
        run={"partitions": 10},
        train={"dim": 16, "optimizer": "adagrad", **changes},
    )


def test_bytes_by_hand(tmp_path: Path) -> None:
    settings = {"batch_size": 100, "negatives": 40, "epochs": 9, "bias": True}
    budget = budget_of(TrainingSize(1000, 500, 12_000, 700), sized(tmp_path, **settings), 3)
    # Worker 0 owns partitions 0, 3, 6, 9: 400 users and 200 items, of 16 numbers and a bias.
    assert budget.tables == 600 * 17 * 4
    assert budget.optimizer == 600 * 2 * 4
    assert budget.partition == 3 * 150 * (17 + 2) * 4
    # 12 bytes an event, 4 for the order of the train events; three counts for each item.
    assert budget.events == 4 * (12_700 * 12 + 12_000 * 4) // 10 + 500 * 24
    assert budget.steps == 120
    # 34 pairs and 40 negatives a worker; two thirds of the rows are elsewhere.
    assert budget.wire == int(74 * 2 / 3 * (8 + 2 * 17 * 4))
    assert budget.files == 1500 * (17 + 2) * 4
    assert budget.stored == 3 * budget.files + 1500 * 17 * 4
    adam = budget_of(TrainingSize(1000, 500, 12_000, 0), sized(tmp_path, optimizer="adam"), 1)
    assert adam.optimizer == 2 * adam.tables == 2 * 1500 * 16 * 4
    assert adam.wire == 0


def sent(run: Run) -> tuple[int, int]:
    """Bytes that this rank sent to others in a step of an epoch, and the budget of it."""
    steps: list[int] = []
    done: list[int] = []
    swap = dist.all_to_all_single

    def counted(taken: Any, given: Any, take: Any = None, give: Any = None) -> Any:
        if give is not None and steps:
            rank = dist.get_rank()
            others = sum(n for w, n in enumerate(give) if w != rank)
            steps[-1] += others * given[:1].numel() * given.element_size()
        return swap(taken, given, take, give)

    dist.all_to_all_single = counted
    group = train.Group.current()
    take = EpochSteps.take

    def stepped(self: EpochSteps, step: int) -> float:
        steps.append(0)
        loss = take(self, step)
        done.append(steps.pop())
        return loss

    EpochSteps.take = stepped  # type: ignore[method-assign]
    train.train_worker(train.WorkerTask.of(run, run.writer("train")), group, Quiet())
    return sum(done) // len(done), budget_of(size_of(run), run.config, group.world).wire


def scattered(root: Path, users: int, items: int, events: int, **settings: Any) -> Run:
    """A run of one epoch whose events are anywhere; a tenth of them to validate on."""
    source = np.random.default_rng(1)
    splits = {
        name: (source.integers(0, users, n), source.integers(0, items, n), np.ones(n))
        for name, n in (("train", events), ("valid", events // 10), ("test", 0))
    }
    trained = {"dim": 64, "epochs": 1, **settings}
    run = Run(config(root, "log.tsv", run={"partitions": 16}, train=trained))
    return store(run, users, items, splits)


def test_bytes_that_workers_send_are_those_of_the_budget(tmp_path: Path) -> None:
    run = scattered(tmp_path, 300, 5000, 2000, batch_size=512, negatives=256)
    for sent_bytes, budget in run_ranks(sent, 2, tmp_path, run):
        assert 0.8 * budget < sent_bytes < 1.1 * budget


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 4096, "optimizer": "adam", "negatives": 64},
        {"objective": "spectral", "spectral": {"passes": 2}},
    ],
    ids=["softmax", "spectral"],
)
def test_peak_memory_is_within_the_budget(settings: dict[str, Any], tmp_path: Path) -> None:
    run = scattered(tmp_path, 300_000, 40_000, 40_000, **settings)
    code = (
        "import sys; from pathlib import Path; from embedmill.pipeline import train;"
        "from embedmill.pipeline.config import parse;"
        "from embedmill.pipeline.store.run import open_run;"
        "from embedmill.pipeline.log import Quiet; run = open_run(sys.argv[1]);"
        "train.build(run, run.writer('train'), Quiet());"
        "print(next(l for l in Path('/proc/self/status').read_text().splitlines() if 'HWM' in l))"
    )
    run.storage.write("config.json", run.config.model_dump_json().encode())
    answer = subprocess.run(
        [sys.executable, "-c", code, run.storage.root], capture_output=True, text=True, check=True
    )
    peak = int(answer.stdout.split()[1]) << 10
    budget = budget_of(TrainingSize(300_000, 40_000, 40_000, 4000), run.config, 1).memory("memory")
    assert 0.6 * budget < peak < budget, (peak, budget)


@pytest.mark.parametrize(
    ("free", "changes", "message"),
    [
        ({"memory": 1 << 28}, {}, r"needs .* GB of memory in one worker even with its tables on"),
        ({"memory": 1 << 28}, {"tables": "memory"}, r"set train\.tables = 'mapped'"),
        (
            {"run": 1 << 30},
            {},
            r"checkpoints and tables need .* of disk, 1\.1 GB are free.*run\.root",
        ),
        ({"memory": 3 << 30, "scratch": 1 << 30}, {}, r"mapped tables need .*train\.scratch"),
    ],
)
def test_what_cannot_fit_is_refused(
    free: dict[str, int], changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    run = sized(tmp_path, **{"dim": 128, **changes})
    budget = budget_of(TrainingSize(9_000_000, 1_000_000, 1_000_000, 0), run, 1)
    with pytest.raises(MachineError, match=message):
        choose_tables(budget, run, FreeResources(**{**vars(ROOM), **free}))


def test_tables_go_to_disk_only_where_they_must(tmp_path: Path) -> None:
    size = TrainingSize(9_000_000, 1_000_000, 1_000_000, 0)
    for tables, memory, expected in (
        ("auto", 1 << 40, "memory"),
        ("auto", 3 << 30, "mapped"),
        ("mapped", 1 << 40, "mapped"),
    ):
        run = sized(tmp_path, dim=128, tables=tables)
        free = FreeResources(memory, ROOM.run, ROOM.scratch, one_disk=False)
        assert choose_tables(budget_of(size, run, 1), run, free) == expected


def test_training_is_refused_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedmill.pipeline.train.resources.available.free_memory", lambda: 1 << 20)
    run = planted(tmp_path)
    with pytest.raises(MachineError, match=r"0\.0 GB are free"):
        train.build(run, run.writer("train"), Quiet())
    assert not run.storage.local_path("train").exists()


def plan(folder: Path, *more: str, train: str = "") -> subprocess.CompletedProcess[str]:
    path = folder / "run.toml"
    path.write_text(
        f'[run]\nname = "big"\nroot = "{folder}"\n[events]\npaths = "x"\ntime = "t"\n'
        f"[train]\nbatch_size = 512\n{train}\n"
    )
    command = [sys.executable, "-m", "embedmill", "plan", str(path), *more]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_tells_and_refuses(tmp_path: Path) -> None:
    sizes = ["--users", "300000", "--items", "20000", "--events", "900000"]
    output = plan(tmp_path, *sizes, "--seconds", "0.1")
    assert output.returncode == 0, output.stderr
    assert all(len(line) <= 80 for line in output.stdout.splitlines())
    assert {line.split("  ")[0].strip() for line in output.stdout.splitlines()} >= {
        "rows", "pairs", "steps", "memory", "disk", "on the wire", "time"
    }  # fmt: skip
    big = plan(tmp_path, "--json", "--users", "90000000000", *sizes[2:])
    assert big.returncode == 7
    flat = json.loads(big.stdout)
    assert (flat["fits"], flat["rows.users"], flat["minutes"]) == (False, 90_000_000_000, 0)
    assert big.stderr.startswith("embedmill: train: checkpoints and tables need")
    assert len(big.stderr.splitlines()) == 1
    mapped = plan(tmp_path, *sizes, "--seconds", "0", train='tables = "mapped"')
    assert "start        spectral  reads mapped tables many times" in mapped.stdout
    at_once = plan(tmp_path, *sizes, "--seconds", "0", train='tables = "mapped"\ninit = "normal"')
    assert "scratch" in at_once.stdout
    assert "spectral" not in at_once.stdout
    unknown = plan(tmp_path)
    assert unknown.returncode == 2
    assert "Give --users, --items and --events" in unknown.stderr


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_minutes_come_from_real_steps(objective: str, tmp_path: Path) -> None:
    sections = {"train": {"objective": objective, "epochs": 3}}
    if OBJECTIVES[objective].source is ITEM_PAIRS:
        sections["shards"] = {"pairs": {}}
    run = Run(config(tmp_path, "log.tsv", **sections))
    estimated = estimate(run, GivenSizes(60, 40, 500), seconds=0.02)
    assert (estimated.size.items, estimated.size.train, estimated.epochs) == (40, 500, 3)
    assert 0 < estimated.seconds < 60


def test_sizes_are_those_of_finished_stages(tmp_path: Path) -> None:
    estimated = estimate(
        planted(tmp_path, train={"refit": True, "epochs": 2}), GivenSizes(), seconds=0
    )
    assert estimated.size == TrainingSize(60, 40, 480 - 2 * 60, 60)
    assert (estimated.epochs, estimated.seconds) == (4, 0)
