"""What is known to fail is refused before anything runs or is written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from embedmill.jobs.all import run_line
from embedmill.pipeline.errors import ConfigError
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.terminal import Terminal
from tests.support.worlds import PlantedWorld, config


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"train": {"track": ["wandb"]}}, "train.track: unknown tracker 'wandb'; allowed"),
        (
            {"evaluate": {"ks": [10], "gates": {"least": {"recall@5": 0.1}}}},
            "evaluate.gates.least: no metric 'recall@5'; did you mean 'recall@10'",
        ),
    ],
)
def test_the_line_does_not_start(tmp_path: Path, sections: Mapping[str, Any], message: str) -> None:
    log = PlantedWorld().write(tmp_path / "log.tsv")
    run = Run(config(tmp_path / "runs", log, **sections))
    with pytest.raises(ConfigError) as stop:
        run_line(run, terminal=Terminal(quiet=True))
    assert message in str(stop.value)
    assert not (tmp_path / "runs").exists()


def test_a_stage_that_is_not_asked_for_is_not_checked(tmp_path: Path) -> None:
    log = PlantedWorld().write(tmp_path / "log.tsv")
    run = Run(config(tmp_path / "runs", log, train={"track": ["wandb"]}))
    run_line(run, last="events", terminal=Terminal(quiet=True))
    assert run.manifest("events") is not None
