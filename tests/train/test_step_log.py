"""The log of a training: where the time goes, every step once, through kills and resumes."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from embedmill.pipeline import train
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.train.logs.phase_timer import PHASES, PhaseTimer
from tests.support.artifacts import arrays_of
from tests.support.ranks import run_ranks
from tests.support.runs import planted, store
from tests.support.worlds import config

STEPS = 9  # of an epoch: 360 train events in batches of 40
SETTINGS = {"epochs": 3, "batch_size": 40, "log_steps": 4, "patience": 0}


def test_a_phase_inside_another_is_taken_out_of_it() -> None:
    time = iter([0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 40.0])
    timer = PhaseTimer(lambda: next(time))
    with timer("lookup"), timer("exchange"):  # from 1 and 3 to 7 and 15
        pass
    whole, parts = timer.lap()
    assert whole == 31.0
    assert parts == {**dict.fromkeys(PHASES, 0.0), "lookup": 2.0 + 8.0, "exchange": 4.0}
    assert timer.lap() == (9.0, dict.fromkeys(PHASES, 0.0))
    with pytest.raises(KeyError):
        timer("sleep")


class StopAtError(Exception):
    pass


class StopAt(Quiet):
    def __init__(self, step: int) -> None:
        self.left = step

    def update(self, done: int, total: int | None, unit: str, **facts: float) -> None:
        self.left -= 1
        if self.left == 0:
            raise StopAtError


def lines(run: Run) -> list[dict[str, Any]]:
    text = run.artifact("train").read("log.jsonl").decode()
    return [json.loads(line) for line in text.splitlines()]


def check_steps(found: list[dict[str, Any]], epochs: int) -> None:
    """Every step of every epoch is in one line, and the pairs add up."""
    steps = [line for line in found if line["kind"] == "steps"]
    for epoch in range(1, epochs + 1):
        own = [line for line in steps if line["epoch"] == epoch and "refit" not in line]
        assert [b["step"] - a["step"] for a, b in pairwise([{"step": 0}, *own])] == [
            line["steps"] for line in own
        ]
        assert own[-1]["step"] == STEPS
        assert sum(line["pairs"] for line in own) == 360


def test_every_step_is_in_one_line(tmp_path: Path) -> None:
    run = planted(tmp_path, train={**SETTINGS, "refit": True})
    train.build(run, run.writer("train"), Quiet())
    found = lines(run)
    check_steps(found, 3)
    kinds = [line["kind"] for line in found if "refit" not in line]
    assert kinds == ["start", *["steps", "steps", "steps", "epoch"] * 3]
    assert {line["kind"] for line in found if "refit" in line} == {"steps", "epoch", "end"}
    history = run.artifact("train").read_json("history.json")
    epochs = [line for line in found if line["kind"] == "epoch" and "refit" not in line]
    for line, entry in zip(epochs, history, strict=True):
        assert entry.items() <= line.items()
        assert line["seconds.validate"] > 0
    for line in found[1:]:
        spent = sum(line[f"seconds.{phase}"] for phase in (*PHASES, "other"))
        assert spent == pytest.approx(line["seconds"], abs=1e-4)
    losses = [line for line in found if line["kind"] == "steps" and line["epoch"] == 1]
    mean = sum(line["train_loss"] * line["pairs"] for line in losses if "refit" not in line) / 360
    assert mean == pytest.approx(history[0]["train_loss"])
    entry = next(f for f in run.artifact("train").files("log.jsonl"))
    assert entry.volatile


def test_the_rate_of_a_refit_falls_to_its_own_end(tmp_path: Path) -> None:
    """Of 30 epochs the best one is early; the refit ends there with the rate of a last step."""
    settings = {**SETTINGS, "epochs": 30, "schedule": "linear", "refit": True}
    run = planted(tmp_path, train=settings)
    train.build(run, run.writer("train"), Quiet())
    refit = [line for line in lines(run) if line["kind"] == "steps" and "refit" in line]
    best = run.artifact("train").read_json("model.json")["best_epoch"]
    assert refit[-1]["epoch"] == best < 30
    per_epoch = refit[-1]["step"]
    for line in refit:
        before = (line["epoch"] - 1) * per_epoch + line["step"] - 1
        rate = run.config.train.learning_rate * (1 - before / (best * per_epoch))
        assert line["learning_rate"] == pytest.approx(rate)


def test_a_resume_goes_on_with_the_log(tmp_path: Path) -> None:
    run = planted(tmp_path, train={**SETTINGS, "checkpoint_steps": 3})
    with pytest.raises(StopAtError):
        train.build(run, run.writer("train"), StopAt(STEPS + 8))
    train.build(run, run.writer("train"), Quiet())
    found = lines(run)
    check_steps(found, 3)
    starts = [(line["epoch"], line["step"]) for line in found if line["kind"] == "start"]
    assert starts == [(0, 0), (1, 3)]


def test_a_log_that_cannot_be_read_is_begun_anew(tmp_path: Path) -> None:
    run = planted(tmp_path, train={**SETTINGS, "checkpoint_copy_mib": 0})
    with pytest.raises(StopAtError):
        train.build(run, run.writer("train"), StopAt(STEPS + 8))
    run.storage.write("train/log.jsonl", b'{"kind": "st')
    train.build(run, run.writer("train"), Quiet())
    assert lines(run)[0] | {"time": ""} == {
        "kind": "start", "time": "", "epoch": 1, "step": 0, "at": 0, "workers": 1,
            "niceness": os.getpriority(os.PRIO_PROCESS, 0),
    }  # fmt: skip


def test_a_step_without_events_has_its_line(tmp_path: Path) -> None:
    one = arrays_of([(0, 0, 1.0)])
    none = arrays_of([])
    run = Run(config(tmp_path, "log.tsv", train={"objective": "ials", "epochs": 1}))
    store(run, 1, 1, {"train": one, "valid": none, "test": none})
    train.build(run, run.writer("train"), Quiet())
    steps = [line for line in lines(run) if line["kind"] == "steps"]
    assert [(line["step"], line["pairs"]) for line in steps] == [(1, 0), (2, 1)]


def rank(run: Run) -> train.TrainingResult:
    return train.train_worker(
        train.WorkerTask.of(run, run.writer("train")), train.Group.current(), Quiet()
    )


def test_two_workers_write_one_log_with_the_greatest_of_both(tmp_path: Path) -> None:
    run = planted(tmp_path, train=SETTINGS)
    outcomes = run_ranks(rank, 2, tmp_path, run)
    assert isinstance(outcomes[0], train.TrainingResult), outcomes
    text = run.storage.read("train/log.jsonl").decode()
    found = [json.loads(line) for line in text.splitlines()]
    check_steps(found, 3)
    assert found[0]["workers"] == 2
    for line in found[1:]:
        assert all(line[f"max.{phase}"] >= line[f"seconds.{phase}"] for phase in PHASES)
    assert all(line["seconds.exchange"] > 0 for line in found[1:])
