"""Finished trials: of `auto` beside the checkpoints until the training has ended."""

from __future__ import annotations

from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.train.checkpoints.checkpoint import Identity
from embedmill.pipeline.train.collectives import Group
from embedmill.schemas.checkpoints import TRIALS, StoredSearch
from embedmill.schemas.files import JsonFile
from embedmill.schemas.train import Trial

__all__ = ["StoredTrials"]


class StoredTrials:
    """Trials that an interrupted search has finished; those of another training are not read."""

    def __init__(
        self,
        storage: Storage,
        identity: Identity,
        group: Group,
        file: JsonFile[StoredSearch] = TRIALS,
    ) -> None:
        """Trials of one search.

        Args:
            storage: the folder of `file`.
            identity: of the training that they are trials for.
            group: the workers.
            file: where they are kept.
        """
        self._storage, self._fingerprint, self._group = storage, identity.fingerprint, group
        self._file = file
        self.trials: list[Trial] = []

    def read(self) -> list[Trial]:
        """The stored trials, the same at every worker; a collective."""
        with self._group.fail_together():
            try:
                stored = self._file.decode(self._storage.read(self._file.path))
                if stored.fingerprint == self._fingerprint:
                    self.trials = list(stored.trials)
            except (FileNotFoundError, ValueError):
                pass  # none, or damaged: the search starts over
        return self.trials

    def write(self, trials: list[Trial]) -> None:
        """Replace the stored trials; a collective."""
        with self._group.fail_together():
            if self._group.rank == 0:
                stored = StoredSearch(fingerprint=self._fingerprint, trials=tuple(trials))
                self._storage.write(self._file.path, self._file.encode(stored))
