"""Ctrl-C and SIGTERM: the command ends soon, says how to go on, and its exit code tells."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from embedmill.pipeline.config import parse, to_toml
from tests.support.worlds import config_tree, laid

EVENTS = 200_000  # so many that a data stage lasts
SAID = "embedmill: interrupted; finished stages are kept, run the same command again to go on"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interrupt")
    log = folder / "log.tsv"
    rows = (f"u{n % 5003}\ti{n % 211}\t{1_600_000_000 + n}\t1\n" for n in range(EVENTS))
    log.write_text("user_id\titem_id\ttime\trating\n" + "".join(rows))
    path = folder / "run.toml"
    tree = laid(config_tree(folder, log), train={"epochs": 1000, "patience": 0})
    path.write_text(to_toml(parse(tree)))
    return path


def started(config: Path, first: str, name: str, launcher: str) -> subprocess.Popen[str]:
    """`embedmill run` in a process that first does something else."""
    command = f"{first}\nfrom embedmill.jobs.cli import main; main()"
    sets = [f"run.name={name}", f"train.launcher={launcher}"]
    words = [word for one in sets for word in ("--set", one)]
    return subprocess.Popen(
        [sys.executable, "-u", "-c", command, "run", str(config), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


RAY_SWEEP = [pytest.mark.ray, pytest.mark.exhaustive]


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("stage", "number", "launcher", "wait"),
    [
        ("events", signal.SIGINT, "inline", 0.5),
        pytest.param("events", signal.SIGTERM, "inline", 0.5, marks=pytest.mark.exhaustive),
        pytest.param("train", signal.SIGINT, "inline", 0.5, marks=pytest.mark.exhaustive),
        ("train", signal.SIGTERM, "inline", 0.5),
        ("train", signal.SIGINT, "processes", 0.5),
        ("train", signal.SIGTERM, "processes", 6.0),
        # Ray takes some seconds to start, and has handlers of its own meanwhile.
        pytest.param("train", signal.SIGTERM, "ray", 2.5, marks=pytest.mark.ray),
        pytest.param("train", signal.SIGTERM, "ray", 4.0, marks=RAY_SWEEP),
        pytest.param("train", signal.SIGTERM, "ray", 8.0, marks=RAY_SWEEP),
    ],
)
def test_a_signal_ends_the_command(
    config: Path, stage: str, number: signal.Signals, launcher: str, wait: float
) -> None:
    code = 128 + number
    # A shell's background jobs ignore SIGINT, and so would we: ask for what a terminal has.
    first = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    name = f"{stage}-{code}-{launcher}-{wait:g}"
    with started(config, first, name, launcher) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.split() == [stage, "started"]:
                break
        time.sleep(wait)
        process.send_signal(number)
        _, err = process.communicate(timeout=45)
    assert process.returncode == code, err
    assert err.strip() == SAID


# Terminates itself as Ray has just started, while Ray's handlers are still there.
AT_THE_START = """
import os, signal, ray
init = ray.init
ray.init = lambda *a, **k: (init(*a, **k), os.kill(os.getpid(), signal.SIGTERM))
"""


@pytest.mark.ray
@pytest.mark.timeout(240)
def test_handlers_of_ray_show_no_stack(config: Path) -> None:
    with started(config, AT_THE_START, "at-the-start", "ray") as process:
        _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, err
    assert err.strip() == SAID
