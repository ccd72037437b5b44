"""What an observer is, and what it is given.

Observers are told what happens and have no say in it: whatever they do, stages, contents and exit
codes are the same (`observers.watch`).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from embedmill.pipeline.config import Config
from embedmill.pipeline.errors import ConfigError
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.run import Run
from embedmill.schemas.run import Failure, RunResult

__all__ = [
    "Observer",
    "RunEnd",
    "StageEnd",
    "StageFailure",
    "StageStart",
    "expanded",
    "is_observed",
    "job_name",
]

_VARIABLE = re.compile(r"\$(\w+|\{\w+\})")


@dataclass(frozen=True)
class StageStart:
    """A stage is being built since a time (seconds since 1970)."""

    stage: str
    at: float


@dataclass(frozen=True)
class StageEnd:
    """A stage is up to date; `built`: it was built just now, else it had been before."""

    artifact: Artifact
    built: bool
    at: float

    @property
    def stage(self) -> str:
        """Its name."""
        return self.artifact.stage


@dataclass(frozen=True)
class StageFailure:
    """A stage that was being built has failed, or was stopped."""

    stage: str
    failure: Failure
    at: float


@dataclass(frozen=True)
class RunEnd:
    """A command has ended; `now_published`: it has made the run the published one."""

    result: RunResult
    now_published: bool
    at: float


class Observer:
    """Is told of one run. Each call may take long or raise: it is made in a thread of its own."""

    def __init__(self, run: Run, began: float) -> None:
        """An observer of a run; raises where it cannot work.

        Args:
            run: that is told of.
            began: when the command began with it, in seconds since 1970: an observer is made in its
                thread, and its library may take seconds to import.
        """
        self.run, self.began = run, began

    def stage_started(self, start: StageStart) -> None:
        """A stage is being built."""

    def stage_finished(self, end: StageEnd) -> None:
        """A stage is up to date."""

    def stage_failed(self, failure: StageFailure) -> None:
        """A stage that was being built has failed."""

    def run_ended(self, end: RunEnd) -> None:
        """The command has ended, well or not; nothing follows."""


def expanded(text: str) -> str:
    """A text with `$NAME` and `${NAME}` replaced by variables of the environment.

    Raises:
        ConfigError: one is not set.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1].strip("{}")
        if name not in os.environ:
            raise ConfigError(f"the variable {name} is not set in the environment")
        return os.environ[name]

    return _VARIABLE.sub(value, text)


def is_observed(config: Config) -> bool:
    """Whether the config names an observer, a command or a webhook."""
    return bool(config.observe.observers or config.run.on_publish or config.run.on_failure)


def job_name(config: Config) -> str:
    """The run's name with `{ds}` in place of the value of the variable `ds`, and so on.

    It is the same every night, where run.name has the day in it.
    """
    name = config.run.name
    for variable, value in config.vars.items():
        if value and value in name:
            name = name.replace(value, f"{{{variable}}}")
    return name
