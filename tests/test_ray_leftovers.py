"""What a killed driver left of Ray is swept by the next start, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from embedmill.jobs.ray_leftovers import name_driver, sweep

WAIT = "import time; time.sleep(60)"


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_processes_and_folders_of_a_driver_that_is_gone(tmp_path: Path) -> None:
    gone, alive, theirs = (tmp_path / f"embedmill-{name}" for name in ("gone", "alive", "theirs"))
    for folder in (gone, alive, theirs):
        (folder / "session").mkdir(parents=True)
        name_driver(folder)
    owner = (gone / "driver").read_text().splitlines()
    (gone / "driver").write_text("\n".join([owner[0], "1", owner[2]]))  # another had this id
    (theirs / "driver").unlink()
    linked = tmp_path / "embedmill-linked"
    linked.symlink_to(gone)
    with (gone / "session" / "agent.log").open("w") as log:
        titled = subprocess.Popen(["ray::Agent", "-c", WAIT], executable=sys.executable, stdout=log)
    agents = [
        subprocess.Popen([sys.executable, "-c", WAIT, f"--session-dir={folder}/session"])
        for folder in (gone, alive, theirs)
    ]
    try:
        assert sweep(tmp_path) == [gone]
        assert agents[0].wait(20) == -9
        assert titled.wait(20) == -9
        assert [agent.poll() for agent in agents[1:]] == [None, None]
        assert sorted(os.listdir(tmp_path)) == [
            "embedmill-alive", "embedmill-linked", "embedmill-theirs",
        ]  # fmt: skip
    finally:
        for agent in [*agents, titled]:
            agent.kill()
            agent.wait()
