"""The command `embedmill`, as a benchmark calls it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["COMMAND", "metrics", "run"]

COMMAND = (sys.executable, "-m", "embedmill")


def run(config: Path, sets: Sequence[str] = (), *, last: str = "report") -> None:
    """Run a TOML up to a stage, with `section.key=value` of `sets` laid over it."""
    words = [word for one in sets for word in ("--set", one)]
    command = [*COMMAND, "run", str(config), "--to", last, *words]
    subprocess.run(command, check=True, stdout=sys.stderr)


def metrics(folder: str) -> dict[str, Any]:
    """What `embedmill metrics` says of the run in `folder`."""
    command = [*COMMAND, "metrics", folder, "--json"]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(answer.stdout)
    return found
