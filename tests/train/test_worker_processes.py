"""Training by processes of this machine: the bytes of Ray's, deaths, errors."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from embedmill.pipeline import train
from embedmill.pipeline.config import TrainConfig
from tests.support.train_drivers import answer, below, outlive_kills, started, until

PROCESSES = 'launcher="processes"'


def workers_of(driver: int) -> set[int]:
    """The worker processes of a driver."""
    return {pid for pid, title in below(driver).items() if "worker_process" in title}


def test_a_killed_worker_then_a_killed_driver(tmp_path: Path) -> None:
    outlive_kills(tmp_path, "worker_process", PROCESSES)


def test_workers_that_fail_too_often_are_not_started_again(tmp_path: Path) -> None:
    driver = started(tmp_path, PROCESSES, "max_failures=0", "epochs=1000", "patience=0")
    until(driver, "epoch 2/")
    os.kill(max(workers_of(driver.pid)), signal.SIGKILL)
    code, messages, errors = answer(driver)
    assert (code, messages[-1]["error"], errors) == (5, "TrainingError", "")
    assert (
        "the workers failed 1 times, at last with: a worker ended by SIGKILL"
        in (messages[-1]["text"])
    )
    assert "it resumes at the last checkpoint" in messages[-1]["text"]


def test_an_error_of_ours_is_one_sentence_and_not_tried_again(tmp_path: Path) -> None:
    code, messages, errors = answer(
        started(tmp_path, PROCESSES, 'objective="rating"', "learning_rate=1e30", "workers=3")
    )
    assert code == 5
    assert len(messages) == 1
    assert messages[0]["error"] == "NotFiniteError"
    assert errors == ""


def test_auto_is_ray_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delitem(__import__("sys").modules, "ray", raising=False)
    auto, named = TrainConfig(), TrainConfig(launcher="processes")
    assert train.launcher_of(auto) == "processes"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert train.launcher_of(auto) == "ray"
    assert train.launcher_of(named) == "processes"
