"""The `train` artifact beside its tables: the model, the history, the log."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import Any

from embedmill.pipeline.store.artifact import Artifact
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
        """The lines of the log, in order; none where no log was stored."""
        if not self.artifact.has(LOG):
            return []
        return [json.loads(line) for line in self.artifact.read(LOG).splitlines()]
