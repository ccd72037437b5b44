"""A real Prefect runs the flow of examples/schedules: `make test-prefect`, in its environment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import prefect

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE.parent / "airflow"), str(ROOT / "examples/schedules")]

import prefect_flow  # noqa: E402
from world import DAYS, process_with, say, write_world  # noqa: E402


def kill(*words: str) -> None:
    """Kill a command once it runs."""
    end = time.monotonic() + 600  # a server of Prefect may start slowly
    while time.monotonic() < end:
        pid = process_with(*words)
        if pid:
            os.kill(pid, signal.SIGKILL)
            return
        time.sleep(0.1)


def main(folder: Path) -> None:
    """A night with a task killed, again, and a gate that fails."""
    config = str(write_world(folder))
    commands: list[str] = []

    def counted(words: list[str], **kwargs: Any) -> Any:
        commands.append(words[words.index("--from") + 1])
        return subprocess.run(words, **kwargs)

    prefect_flow.subprocess = SimpleNamespace(run=counted, PIPE=subprocess.PIPE)
    killer = threading.Thread(target=kill, args=("--from", "vocab"), daemon=True)
    killer.start()
    result = prefect_flow.night(config, DAYS[0])
    assert (result["run"], result["published"]) == (f"plays-{DAYS[0]}", True)
    assert commands == ["events", "vocab", *prefect_flow.STAGES[1:]], commands
    say(f"prefect {prefect.__version__}: a night with a task killed: tried again, and published")
    result = prefect_flow.night(config, DAYS[0])
    assert result["stages"][0]["state"] == "up to date"
    say("again: up to date")
    gate = Path(config).read_text() + "[evaluate.gates]\nleast = {'recall@10' = 1.5}\n"
    other = folder / "gated.toml"
    other.write_text(gate.replace('runs"', 'gated"'))
    commands.clear()
    state = prefect_flow.night(str(other), DAYS[0], return_state=True)
    assert state.is_failed()
    assert commands == list(prefect_flow.STAGES), commands
    say("a gate that fails: tried once")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
