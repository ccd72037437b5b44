"""The `vocab` artifact: the files of both sides, its spec, histograms, its base run.

`views.vocabulary` maps raw ids to rows and back.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from embedmill.pipeline.store.artifact import Artifact
from embedmill.schemas.manifest import FileEntry
from embedmill.schemas.vocab import BASE, COUNTS, FILES, SPEC, BaseRun, Counts, VocabSpec

__all__ = ["Vocab"]


@dataclass(frozen=True)
class Vocab:
    """What `vocab` holds."""

    artifact: Artifact

    @functools.cached_property
    def spec(self) -> VocabSpec:
        """Columns of the ids and rows of each side: what an incremental run must know."""
        return self.artifact.read_json(SPEC)

    def files(self, side: str) -> list[FileEntry]:
        """Files of "users" or "items", for the engine that reads them."""
        return self.artifact.files(FILES[side].folder)

    def counts(self) -> Counts | None:
        """Histograms of events per id; None where an older version of this program wrote it."""
        return self.artifact.read_json(COUNTS) if self.artifact.has(COUNTS.path) else None

    def base_run(self) -> BaseRun | None:
        """The run whose vocabulary this one continues; None for a new vocabulary."""
        return self.artifact.read_json(BASE) if self.artifact.has(BASE.path) else None
