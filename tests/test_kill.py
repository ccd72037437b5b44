"""A `kill -9` of the driver in the middle of each stage changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedmill.pipeline.config import parse, to_toml
from embedmill.schemas.stages import STAGES
from tests.support.kill_stages import kill_each
from tests.support.worlds import PlantedWorld, config_tree, laid

RAY = pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.exhaustive])


@pytest.mark.timeout(900)
@pytest.mark.parametrize("launcher", ["processes", RAY])
def test_kill_in_every_stage(tmp_path: Path, launcher: str) -> None:
    log = PlantedWorld().write(tmp_path / "log.tsv")
    train = {
        "launcher": launcher, "workers": 2, "epochs": 30, "checkpoint_steps": 5, "patience": 0,
    }  # fmt: skip
    path = tmp_path / "run.toml"
    path.write_text(to_toml(parse(laid(config_tree(tmp_path, log), train=train))))
    kills, calm, killed = kill_each(path, tmp_path / "runs")
    assert [kill.stage for kill in kills] == list(STAGES)
    # Short stages may end first on a busy machine; training must have been in the middle.
    in_time = {kill.stage for kill in kills if kill.in_time}
    assert "train" in in_time
    assert len(in_time) >= 4
    assert killed == calm
