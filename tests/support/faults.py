"""Tasks that go wrong on purpose, each once, as a cluster's tasks do now and then.

Shipped to executors, so it imports nothing of the tests.
"""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyspark import TaskContext
from pyspark.sql.classic.dataframe import DataFrame

__all__ = ["KINDS", "calls", "planted"]

_SLOW = 120.0  # seconds, unless the task is ended before
_EXECUTOR = "CoarseGrainedExecutorBackend"
_WORKER = "deploy.worker.Worker"


def _fail() -> None:
    raise RuntimeError("a task fails on purpose")


def _slow() -> None:
    time.sleep(_SLOW)


def _kill() -> None:
    """The executor above this task."""
    os.kill(_above(_EXECUTOR), signal.SIGKILL)
    os._exit(1)


def _kill_worker() -> None:
    """The node: its worker, then the executor that the worker started."""
    executor, worker = _above(_EXECUTOR), _above(_WORKER)
    os.kill(worker, signal.SIGKILL)
    os.kill(executor, signal.SIGKILL)
    os._exit(1)


KINDS: dict[str, Callable[[], None]] = {
    "fail": _fail,
    "slow": _slow,
    "kill": _kill,
    "kill worker": _kill_worker,
}


@contextmanager
def planted(faults: Mapping[str, str], folder: Path) -> Iterator[None]:
    """Tasks of Apache Spark go wrong as `faults` say: "module.function" → "kind early" or "kind".

    An early fault strikes after the first rows of a task were handed on, another one when the
    task has written all of its files and handed on all rows. All tasks leave a note in `folder`.
    """
    plain = DataFrame.mapInArrow

    def mapped(frame: DataFrame, task: Any, schema: Any) -> Any:
        name = _name(task)
        return plain(frame, _Faulty(task, name, faults.get(name, ""), str(folder)), schema)

    folder.mkdir(parents=True, exist_ok=True)
    DataFrame.mapInArrow = mapped  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        DataFrame.mapInArrow = plain  # type: ignore[method-assign]


def calls(folder: Path) -> list[dict[str, str]]:
    """What tasks noted: function, stage, partition, attempt; `package`; whether they `ended`."""
    found = []
    names = ("function", "stage", "partition", "attempt", "package")
    for path in folder.glob("*.call"):
        words = path.read_text(encoding="utf-8").split("\n")
        ended = "yes" if path.with_suffix(".end").exists() else ""
        found.append({**dict(zip(names, words, strict=True)), "ended": ended})
    return found


@dataclass(frozen=True)
class _Faulty:
    task: Callable[[Iterator[Any]], Iterator[Any]]
    name: str
    fault: str
    folder: str

    def __call__(self, batches: Iterator[Any]) -> Iterator[Any]:
        note = Path(self.folder, uuid.uuid4().hex)
        note.with_suffix(".call").write_text("\n".join(_here(self.name)), encoding="utf-8")
        kind, early = self.fault.removesuffix(" early"), self.fault.endswith(" early")
        for number, row in enumerate(self.task(batches)):
            yield row
            if kind and early and number == 0:
                self._strike(kind)
        if kind and not early:
            self._strike(kind)
        note.with_suffix(".end").touch()

    def _strike(self, kind: str) -> None:
        """Go wrong, unless another attempt or task has."""
        try:
            os.close(os.open(Path(self.folder, f"{self.name}.struck"), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        KINDS[kind]()


def _name(task: Any) -> str:
    """Module and function of a stage's task."""
    inner = task.task
    inner = getattr(inner, "func", inner)
    return f"{inner.__module__.rpartition('.')[2]}.{inner.__name__}"


def _here(name: str) -> list[str]:
    from embedmill import pipeline

    context = TaskContext.get()
    assert context is not None
    numbers = (context.stageId(), context.partitionId(), context.attemptNumber())
    return [name, *map(str, numbers), str(pipeline.__file__)]


def _above(kind: str) -> int:
    """The process of this kind that this one descends from."""
    pid = os.getppid()
    while pid > 1:
        if kind in Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace"):
            return pid
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    raise RuntimeError(f"no {kind} above this task")
