"""The `train` artifact beside its tables: the model, the history, the log."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import Any

from embedmill.pipeline.errors import ContractError
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.stored_json import UNREADABLE
from embedmill.schemas.train import (
    FILES,
    HISTORY,
    LOG,
    MODEL,
    STATE,
    TRIALS,
    Epoch,
    Model,
    Search,
)

__all__ = ["Training"]

# What lines of the log have at least, by their kind.
_NUMBERS: dict[str, set[str]] = {
    "start": {"workers"},
    "steps": {"pairs", "seconds"},
    "epoch": set(),
    "end": set(),
}


@dataclass(frozen=True)
class Training:
    """A finished training; for its tables see `views.tables`."""

    artifact: Artifact

    @functools.cached_property
    def model(self) -> Model:
        """What the tables are."""
        return self.artifact.read_json(MODEL)

    @functools.cached_property
    def history(self) -> list[Epoch]:
        """Figures of each epoch, in order."""
        return self.artifact.read_json(HISTORY)

    @functools.cached_property
    def search(self) -> Search | None:
        """What objective `auto` tried and chose; None where the config names an objective."""
        return self.artifact.read_json(TRIALS) if self.artifact.has(TRIALS.path) else None

    @property
    def has_state(self) -> bool:
        """Whether rows are stored as they were trained, with optimizer state."""
        return self.artifact.has(STATE.path(0))

    def state(self, partition: int) -> bytes:
        """The safetensors file of a partition's rows as they were trained; see `schemas.train`."""
        return self.artifact.read(STATE.path(partition))

    def table(self, name: str, partition: int) -> bytes:
        """The safetensors file of a partition of a published table."""
        return self.artifact.read(FILES[name].path(partition))

    def log(self) -> list[dict[str, Any]]:
        """The lines of the log, in order; none where no log was stored.

        Raises:
            CorruptArtifactError: its bytes differ from the manifest.
            ContractError: a line is not one of a log of a training.
        """
        if not self.artifact.has(LOG):
            return []
        lines = self.artifact.read(LOG).splitlines()
        return [self._line(number, text) for number, text in enumerate(lines, 1)]

    def _line(self, number: int, text: bytes) -> dict[str, Any]:
        try:
            line = json.loads(text)
        except UNREADABLE:
            line = None
        if not _is_line(line):
            raise ContractError(
                f"line {number} is not one of a log of a training",
                where=self.artifact.url(LOG),
                todo="Run again with --from train --rebuild",
            )
        known: dict[str, Any] = line
        return known


def _is_line(line: Any) -> bool:
    """Whether a line has a known kind, and numbers where its readers add them up."""
    kind = line.get("kind") if isinstance(line, dict) else None
    if not isinstance(kind, str) or kind not in _NUMBERS:
        return False
    added = {key for key in line if key.startswith("seconds")} | _NUMBERS[kind]
    return all(_is_number(line.get(key)) for key in added)


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 1 << 63)
