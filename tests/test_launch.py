from __future__ import annotations

import io
import os
import signal
import time
from importlib import import_module
from pathlib import Path

import pytest

from embedmill.jobs.all import job_of
from embedmill.jobs.launch import Job, exit_code, run_stage
from embedmill.pipeline.config import to_toml
from embedmill.pipeline.errors import (
    ConfigError,
    GateError,
    MachineError,
    StaleArtifactError,
    TrainingError,
)
from embedmill.pipeline.log import Progress
from embedmill.pipeline.store.artifact_writer import Writer
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.terminal import Terminal
from embedmill.schemas.stages import STAGES
from tests.support.worlds import config

NONE = {"rows_in": 0, "events": 0, "rejected": 0, "merged": 0}


def build(_run: Run, out: Writer, _progress: Progress) -> None:
    out.commit(NONE)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("x: unknown key"), 2, "embedmill: x: unknown key\n"),
        (TrainingError("loss is NaN", where="epoch 1"), 5, "embedmill: epoch 1: loss is NaN\n"),
        (GateError("1 gate failed"), 6, "embedmill: 1 gate failed\n"),
        (MachineError("the disk is full"), 7, "embedmill: the disk is full\n"),
        (OSError(28, "No space left on device"), 7, "No space left on device"),
        (KeyboardInterrupt(), 130, "interrupted; finished stages are kept"),
    ],
)
def test_exit_codes(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        raise error

    assert exit_code(work) == code
    text = capsys.readouterr().err
    assert said in text
    assert "Traceback" not in text


def test_a_bug_shows_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        raise ZeroDivisionError("oops")

    assert exit_code(work) == 70
    text = capsys.readouterr().err
    assert "ZeroDivisionError: oops" in text
    assert "this is a bug" in text


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_that_comes_in_a_finaliser_is_not_lost(
    number: signal.Signals, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    class Signalled:
        def __del__(self) -> None:
            os.kill(os.getpid(), number)
            for _ in range(1000):  # the handler runs in here
                pass

    def work() -> None:
        Signalled()
        time.sleep(30)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert exit_code(work) == code
    finally:
        signal.signal(signal.SIGINT, before)
    assert "interrupted; finished stages are kept" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_like_ctrl_c(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        os.kill(os.getpid(), number)
        time.sleep(5)

    before = signal.signal(number, signal.SIG_DFL)  # under nohup, SIGHUP is ignored
    try:
        assert exit_code(work) == 143
    finally:
        signal.signal(number, before)
    assert "interrupted" in capsys.readouterr().err


def test_a_hangup_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert exit_code(lambda: os.kill(os.getpid(), signal.SIGHUP)) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_no_error_is_zero() -> None:
    assert exit_code(lambda: None) == 0


def test_a_stage_runs_once_and_again_when_stale(tmp_path: Path) -> None:
    run, text = Run(config(tmp_path, "log.tsv")), io.StringIO()
    terminal = Terminal(text)
    job = Job("events", build, lambda _: {"log": "1"})
    assert run_stage(run, job, terminal, rebuild=False).built
    assert not run_stage(run, job, terminal, rebuild=False).built
    assert text.getvalue().splitlines()[-1].endswith("up to date")
    changed = Job("events", build, lambda _: {"log": "2"})
    with pytest.raises(
        StaleArtifactError,
        match=r"files of the log came or changed after it was built \(1 changed\): log",
    ):
        run_stage(run, changed, terminal, rebuild=False)
    assert run_stage(run, changed, terminal, rebuild=True).built


def test_rebuild_replaces_a_damaged_manifest(tmp_path: Path) -> None:
    run, terminal = Run(config(tmp_path, "log.tsv")), Terminal(quiet=True)
    run_stage(run, Job("events", build), terminal, rebuild=False)
    run.storage.write("events/manifest.json", b"{")
    assert run_stage(run, Job("events", build), terminal, rebuild=True).built
    assert run.up_to_date("events")


@pytest.mark.parametrize("stage", STAGES)
def test_a_job_file_has_one_job(stage: str) -> None:
    module = import_module(f"embedmill.jobs.{stage}")
    assert module.JOB is job_of(stage)
    assert module.JOB.stage == stage


@pytest.mark.parametrize(
    ("stage", "change", "message"),
    [
        ("vocab", "vocab.previous='nowhere'", "nowhere"),
        ("train", "train.track=['wandb']", "unknown tracker 'wandb'"),
        ("train", "train.objective='sofmax'", "'sofmax'"),
        ("index", "index.kind='annoy'", "'annoy'"),
        ("evaluate", "evaluate.gates.least={'recall@7'=0.1}", "no metric 'recall@7'"),
    ],
)
def test_a_job_file_checks_its_config(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], stage: str, change: str, message: str
) -> None:
    """On its own, as `jobs/all.py` does: before anything has run or is written."""
    toml = tmp_path / "run.toml"
    toml.write_text(to_toml(config(tmp_path / "runs", tmp_path / "log.tsv")), encoding="utf-8")
    code = import_module(f"embedmill.jobs.{stage}").main([str(toml), "--set", change])
    text = capsys.readouterr().err
    assert message in text
    assert "Traceback" not in text
    assert code in (2, 4)
    assert not (tmp_path / "runs").exists()
