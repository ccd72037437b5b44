"""A process of Ray, or the driver, ends in the middle of training: a sentence, and on it goes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from embedmill.jobs.ray_leftovers import PREFIX
from embedmill.pipeline.config import parse, to_toml
from embedmill.pipeline.store.run import Run
from embedmill.schemas.stages import STAGES
from tests.support.train_drivers import below, gone
from tests.support.worlds import PlantedWorld, config_tree, laid

pytestmark = [pytest.mark.ray, pytest.mark.exhaustive, pytest.mark.timeout(600)]

STOPPED = "embedmill: interrupted; finished stages are kept, run the same command again to go on\n"
ENDED = "embedmill: train: a process of Ray ended: "


def named(driver: int, word: str) -> int:
    """The process below the driver whose title has a word."""
    return next(pid for pid, title in below(driver).items() if word in title)


def kill(word: str) -> Callable[[int], None]:
    return lambda driver: os.kill(named(driver, word), signal.SIGKILL)


# Fault → how it strikes, exit code, beginning of what is said.
FAULTS: dict[str, tuple[Callable[[int], None], int, str]] = {
    "raylet": (kill("raylet/raylet"), 7, ENDED),
    "gcs": (kill("gcs_server"), 7, ENDED),
    "mailbox": (kill("ray::Mailbox"), 7, ENDED),
    "hangup": (lambda driver: os.kill(driver, signal.SIGHUP), 143, STOPPED),
    "driver": (lambda driver: os.kill(driver, signal.SIGKILL), -9, ""),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ray-faults")


@pytest.fixture(scope="module")
def log(folder: Path) -> Path:
    return PlantedWorld().write(folder / "log.tsv")


def command(folder: Path, log: Path, name: str, launcher: str) -> tuple[list[str], Run]:
    train = {"launcher": launcher, "epochs": 120, "checkpoint_steps": 5, "patience": 0}
    config = parse(laid(config_tree(folder, log, name), train=train))
    path = folder / f"{name}.toml"
    path.write_text(to_toml(config))
    return [sys.executable, "-m", "embedmill", "run", str(path), "--no-publish"], Run(config)


@pytest.fixture(scope="module")
def undisturbed(folder: Path, log: Path) -> dict[str, str]:
    words, run = command(folder, log, "calm", "inline")
    subprocess.run(words, check=True, capture_output=True, timeout=300)
    return contents(run)


def contents(run: Run) -> dict[str, str]:
    return {s: run.artifact(s).manifest.content for s in STAGES if s != "report"}


def folders_of_ray(driver: int) -> list[Path]:
    """Folders of the Ray of a driver."""
    owners = Path("/tmp").glob(f"{PREFIX}*/driver")
    return [owner.parent for owner in owners if owner.read_text().startswith(f"{driver}\n")]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault(
    fault: str,
    folder: Path,
    log: Path,
    undisturbed: dict[str, str],
    request: pytest.FixtureRequest,
) -> None:
    strike, code, said = FAULTS[fault]
    words, run = command(folder, log, fault, "ray")
    driver = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    request.addfinalizer(driver.kill)
    latest = Path(run.storage.root, "train/checkpoints/latest.json")
    end = time.monotonic() + 240
    while not latest.exists():
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
    titles = below(driver.pid)
    children = set(titles)
    assert len(folders_of_ray(driver.pid)) == 1
    began = time.monotonic()
    strike(driver.pid)
    _, errors = driver.communicate(timeout=60)
    took = time.monotonic() - began
    assert driver.returncode == code, errors
    assert errors.startswith(said), errors
    assert errors.count("\n") <= 1, errors
    assert took < 30
    if fault != "driver":
        assert gone(children, 20) == set(), titles
        assert folders_of_ray(driver.pid) == []
    again = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    _, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert contents(run) == undisturbed
    assert gone(children, 20) == set()
    assert folders_of_ray(driver.pid) == folders_of_ray(again.pid) == []
