"""Errors for people: what is wrong, where, and what to do next.

    EmbedmillError              exit 1
    ├── ConfigError             exit 2   the TOML or a --set
    ├── InputError              exit 3   a raw log: missing, empty, wrong columns
    │   └── RejectsError                 more bad lines than `events.max_rejects`
    ├── ArtifactError           exit 4   a stored artifact
    │   ├── MissingArtifactError         the stage has not run
    │   ├── StaleArtifactError           built from another config or input
    │   ├── CorruptArtifactError         bytes differ from the manifest
    │   └── ContractError                schema or row counts do not hold
    ├── TrainingError           exit 5   training cannot go on
    │   └── NotFiniteError               a loss or gradient is NaN or infinite
    ├── GateError               exit 6   the run finished below its gates; not published
    ├── IndexTargetError        exit 6   no index meets the targets of `[index]`; not published
    └── MachineError            exit 7   disk, permissions, engine, cluster

Ctrl-C exits 130. Anything else is a bug and exits 70 with a traceback.
"""

from __future__ import annotations

import re

__all__ = [
    "ArtifactError",
    "ConfigError",
    "ContractError",
    "CorruptArtifactError",
    "EmbedmillError",
    "GateError",
    "IndexTargetError",
    "InputError",
    "MachineError",
    "MissingArtifactError",
    "NotFiniteError",
    "RejectsError",
    "StaleArtifactError",
    "TrainingError",
    "from_text",
]


class EmbedmillError(Exception):
    """One clear sentence for a person; `exit_code` is the process's."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", todo: str = "") -> None:
        super().__init__(what, where, todo)
        self.what = what
        self.where = where
        self.todo = todo

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the trip between processes."""
        return _rebuild, (type(self).__name__, self.what, self.where, self.todo)

    def __str__(self) -> str:
        where = f"{self.where.removeprefix('file://')}: " if self.where else ""
        todo = f". {self.todo}" if self.todo else ""
        # One line, so that the sentence survives a remote traceback (see `from_text`).
        what = self.what.rstrip(".") if todo else self.what
        return f"{where}{what}{todo}".replace("\n", " ")


class ConfigError(EmbedmillError):
    """The TOML or a `--set` cannot be used."""

    exit_code = 2


class InputError(EmbedmillError):
    """A raw log is missing, empty or has other columns than the config says."""

    exit_code = 3


class RejectsError(InputError):
    """More bad lines than `events.max_rejects` allows."""


class ArtifactError(EmbedmillError):
    """A stored artifact cannot be used."""

    exit_code = 4


class MissingArtifactError(ArtifactError):
    """The stage that writes the artifact has not finished."""


class StaleArtifactError(ArtifactError):
    """The artifact was built from another config or other inputs."""


class CorruptArtifactError(ArtifactError):
    """Bytes on disk differ from the manifest."""


class ContractError(ArtifactError):
    """A schema or a conservation law does not hold."""


class TrainingError(EmbedmillError):
    """Training cannot go on."""

    exit_code = 5


class NotFiniteError(TrainingError):
    """A loss or a gradient is NaN or infinite."""


class GateError(EmbedmillError):
    """The run finished, below its gates; nothing was published."""

    exit_code = 6


class IndexTargetError(EmbedmillError):
    """No index meets the targets of `[index]`; `todo` ends with a table of what was measured."""

    exit_code = 6

    def __str__(self) -> str:
        said = super().__str__() if "\n" not in self.todo else ""
        if said:
            return said
        todo, lines = self.todo.split("\n", 1)
        return f"{EmbedmillError(self.what, where=self.where, todo=todo)}\n{lines}"


class MachineError(EmbedmillError):
    """Disk, permissions, engine or cluster refuse."""

    exit_code = 7


_CLASSES: dict[str, type[EmbedmillError]] = {
    c.__name__: c
    for c in (
        EmbedmillError,
        ConfigError,
        InputError,
        RejectsError,
        ArtifactError,
        MissingArtifactError,
        StaleArtifactError,
        CorruptArtifactError,
        ContractError,
        TrainingError,
        NotFiniteError,
        GateError,
        IndexTargetError,
        MachineError,
    )
}

# Engines may wrap it: "RuntimeError: External error: InputError: no such file".
_IN_TRACEBACK = re.compile(rf"\b({'|'.join(_CLASSES)}): (.+)")


def _rebuild(name: str, what: str, where: str, todo: str) -> EmbedmillError:
    return _CLASSES[name](what, where=where, todo=todo)


def from_text(text: str) -> EmbedmillError | None:
    """The error of ours that a remote traceback ends with, or None when there is none.

    Engines hand a worker's exception back as the text of its traceback.
    """
    found = None
    for match in _IN_TRACEBACK.finditer(text):
        found = _CLASSES[match[1]](match[2].strip())
    return found
