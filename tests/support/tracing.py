"""Coverage of Sail's tasks: they run in threads that Python did not start, so it sees none."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Traced:
    """A task that starts the tracer of whichever thread it finds itself in."""

    task: Callable[[Iterator[Any]], Iterator[Any]]

    def __call__(self, batches: Iterator[Any]) -> Iterator[Any]:
        rows = iter(self.task(batches))
        while True:
            if sys.gettrace() is None:
                sys.settrace(threading.gettrace())
            try:
                row = next(rows)
            except StopIteration:
                return
            yield row
