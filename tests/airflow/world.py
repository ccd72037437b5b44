"""Logs of three days with users and items in four clusters, and a config of a run for a date.

And what checks of schedulers share.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

__all__ = ["DAYS", "process_with", "say", "write_world"]

DAYS = ("2026-11-20", "2026-11-21", "2026-11-22")
_TOML = """\
[run]
name = "plays-{{ds}}"
root = "{folder}/runs"
partitions = 2
[events]
paths = "{folder}/logs/date={{ds}}/*.tsv"
format = "tsv"
user = "user"
item = "item"
time = "time"
[vocab]
previous = "published"
[train]
objective = "spectral"
dim = 8
workers = 1
[index]
kind = "flat"
"""


def write_world(folder: Path) -> Path:
    """Write logs and config below `folder`; returns the config's path."""
    for number, day in enumerate(DAYS):
        lines = ["user\titem\ttime"]
        for user in range(40 + number):
            for step in range(8):
                item = user % 4 + 4 * ((user * 7 + step * (3 + number)) % 10)
                lines.append(f"u{user}\ti{item}\t{1_600_000_000 + 86_400 * step + user}")
        log = folder / "logs" / f"date={day}" / "part.tsv"
        log.parent.mkdir(parents=True)
        log.write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = folder / "plays.toml"
    config.write_text(_TOML.format(folder=folder), encoding="utf-8")
    return config


def say(text: str) -> None:
    """A line of the transcript."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def process_with(*words: str) -> int | None:
    """A process whose command line has these words."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found = path.read_bytes().decode(errors="replace").split("\0")
            if all(word in found for word in words):
                return int(path.parent.name)
    return None
