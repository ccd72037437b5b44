"""Kill the driver in the middle of each stage; the run must end as if nothing had happened.

    python -m tests.support.kill_stages examples/movielens-100k.toml

Runs the config undisturbed, then under another name with one `kill -9` in every stage, each
followed by the same command, and compares the content hashes of all manifests.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from embedmill.jobs.launch import discard_from
from embedmill.pipeline.store.run import open_run
from embedmill.schemas.stages import STAGES

NAME = "run"  # in both roots: the report tells it
LIMIT = 600.0  # seconds that one command may take
TRIES = 3  # of a kill that is to hit its stage


@dataclass(frozen=True)
class Killed:
    """One kill: `seconds` after its stage began, of the `whole` that the stage takes."""

    stage: str
    seconds: float
    whole: float
    in_time: bool


def command(config: Path, root: Path, sets: Sequence[str]) -> list[str]:
    """The command line that is run, killed, and run again."""
    line = [sys.executable, "-m", "embedmill", "run", str(config)]
    for one in (*sets, f'run.root="{root}"', f"run.name={NAME}"):
        line += ["--set", one]
    return line


def finish(line: list[str]) -> None:
    """Run the command to its end."""
    answer = subprocess.run(line, capture_output=True, text=True, timeout=LIMIT, check=False)
    if answer.returncode != 0:
        raise RuntimeError(f"exit {answer.returncode}: {answer.stdout}{answer.stderr}")


def kill_in(line: list[str], stage: str, after: float) -> bool:
    """Run the command and kill its driver `after` seconds into the stage.

    Returns whether the driver was still in that stage.
    """
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as driver:
        assert driver.stdout is not None
        patience = threading.Timer(LIMIT, driver.kill)
        patience.start()
        said: list[str] = []
        for text in driver.stdout:
            said.append(text)
            if text.split() == [stage, "started"]:
                break
        else:
            raise RuntimeError(f"'{stage}' never started: {''.join(said)}")
        time.sleep(after)
        os.kill(driver.pid, signal.SIGKILL)
        patience.cancel()
        rest = driver.stdout.read()
    ended = [t.split() for t in rest.splitlines() if t.startswith(f"{stage} ")]
    return not any(words[-1] == "s" for words in ended)


def contents(run: Path) -> dict[str, str]:
    """Content hash of every stage's manifest."""
    one = open_run(str(run / NAME))
    return {stage: one.artifact(stage).manifest.content for stage in STAGES}


def kill_each(
    config: Path, root: Path, sets: Sequence[str] = (), share: float = 0.5
) -> tuple[list[Killed], dict[str, str], dict[str, str]]:
    """Kill every stage once at `share` of its time; returns kills and both runs' contents."""
    finish(command(config, root / "undisturbed", sets))
    calm = open_run(str(root / "undisturbed" / NAME))
    line, kills = command(config, root / "killed", sets), []
    for stage in STAGES:
        whole = calm.artifact(stage).manifest.seconds
        for attempt in range(TRIES):
            after = whole * share / 2**attempt
            in_time = kill_in(line, stage, after)
            if in_time:
                break
            # The machine is faster than before: the stage had ended. Undo it and kill earlier.
            discard_from(open_run(str(root / "killed" / NAME)), stage)
        kills.append(Killed(stage, after, whole, in_time))
    finish(line)
    return kills, contents(root / "undisturbed"), contents(root / "killed")


def main(argv: Sequence[str] | None = None) -> int:
    """Print one line per stage; exit 1 where a content hash differs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="embedmill-kill-") as folder:
        kills, calm, killed = kill_each(args.config, Path(folder), args.set)
    equal = True
    for kill in kills:
        same = calm[kill.stage] == killed[kill.stage]
        equal &= same
        when = f"killed {kill.seconds:.1f} s into {kill.whole:.1f} s"
        late = "" if kill.in_time else " (it had just finished)"
        print(f"{kill.stage:<9} {when}{late}: content {'equal' if same else 'DIFFERS'}")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
