"""Errors: what is wrong, where, and what to do next.

    EmbedmillError              exit 1
    ├── ConfigError             exit 2   the config, an override or the command line
    ├── InputError              exit 3   a raw log is missing, empty or has wrong columns
    │   └── RejectsError                 more bad lines than `events.max_rejects` allows
    ├── ArtifactError           exit 4   a stored artifact cannot be used
    │   ├── MissingArtifactError         the stage has not run
    │   ├── StaleArtifactError           built from another config or input
    │   │   └── LateFilesError           files of the log came or changed after the run
    │   ├── CorruptArtifactError         bytes differ from the manifest
    │   └── ContractError                schema or row counts do not hold
    ├── TrainingError           exit 5   training cannot go on
    │   └── NotFiniteError               a loss or gradient is NaN or infinite
    ├── GateError               exit 6   the run finished below its gates; not published
    ├── IndexTargetError        exit 6   no index meets the targets of `[index]`; not published
    ├── MachineError            exit 7   disk, permissions, engine or cluster fail
    │   └── MissingPackageError          a package that an extra installs is missing
    └── InUseError              exit 8   another process runs the same run

Running the same command again may help after a MachineError other than a missing package, an
InUseError, Ctrl-C (130) and SIGTERM (143), and after nothing else: see `EmbedmillError.retry`. Any
other exception is a bug, which exits 70 with a traceback.
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
    "InUseError",
    "IndexTargetError",
    "InputError",
    "LateFilesError",
    "MachineError",
    "MissingArtifactError",
    "MissingPackageError",
    "NotFiniteError",
    "RejectsError",
    "StaleArtifactError",
    "TrainingError",
    "from_text",
]


class EmbedmillError(Exception):
    """An error that a user can act on; `str` of it is one line.

    `exit_code` is what a process that ends with it returns. `retry` says whether the same command
    may succeed later without any change.
    """

    exit_code = 1
    retry = False

    def __init__(self, what: str, *, where: str = "", todo: str = "") -> None:
        """An error from its parts.

        Args:
            what: what is wrong.
            where: the file, folder, config key or option that it concerns.
            todo: what the user can do, as a sentence without its final stop.
        """
        super().__init__(what, where, todo)
        self.what = what
        self.where = where
        self.todo = todo

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by parts: workers send errors to the process that started them."""
        return _rebuild, (type(self).__name__, self.what, self.where, self.todo)

    def __str__(self) -> str:
        where = f"{self.where.removeprefix('file://')}: " if self.where else ""
        todo = f". {self.todo}" if self.todo else ""
        # One line, so that the sentence survives a remote traceback (see `from_text`).
        what = self.what.rstrip(".") if todo else self.what
        return f"{where}{what}{todo}".replace("\n", " ")


class ConfigError(EmbedmillError):
    """The config, a `--set` or the command line cannot be used."""

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


class LateFilesError(StaleArtifactError):
    """Raw files came, changed or went after a run had read them; its config is the same."""


class CorruptArtifactError(ArtifactError):
    """Bytes on disk differ from the manifest."""


class ContractError(ArtifactError):
    """A schema or a conservation law of row counts does not hold."""


class TrainingError(EmbedmillError):
    """Training cannot start or go on."""

    exit_code = 5


class NotFiniteError(TrainingError):
    """A loss or a gradient is NaN or infinite."""


class GateError(EmbedmillError):
    """The run finished below its gates; it was not published."""

    exit_code = 6


class IndexTargetError(EmbedmillError):
    """No index meets the targets of `[index]`; `todo` ends with a table of what was measured."""

    exit_code = 6

    def __str__(self) -> str:
        todo, newline, table = self.todo.partition("\n")
        return f"{EmbedmillError(self.what, where=self.where, todo=todo)}{newline}{table}"


class MachineError(EmbedmillError):
    """Disk, permissions, engine or cluster fail."""

    exit_code = 7
    retry = True


class MissingPackageError(MachineError):
    """A package that an extra of embedmill installs is not installed; no retry helps, so not 7."""

    exit_code = 2
    retry = False


class InUseError(EmbedmillError):
    """Another process runs the run, or has taken it over from this one."""

    exit_code = 8
    retry = True


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
        LateFilesError,
        CorruptArtifactError,
        ContractError,
        TrainingError,
        NotFiniteError,
        GateError,
        IndexTargetError,
        MachineError,
        MissingPackageError,
        InUseError,
    )
}

# Engines may put their own error around it:
# "RuntimeError: External error: InputError: no such file".
_IN_TRACEBACK = re.compile(rf"\b({'|'.join(_CLASSES)}): (.+)")


def _rebuild(name: str, what: str, where: str, todo: str) -> EmbedmillError:
    return _CLASSES[name](what, where=where, todo=todo)


def from_text(text: str) -> EmbedmillError | None:
    """The last `EmbedmillError` that the text of a traceback names; None where it names none.

    Engines return a worker's exception as the text of its traceback.
    """
    error = None
    for match in _IN_TRACEBACK.finditer(text):
        error = _CLASSES[match[1]](match[2].strip())
    return error
