"""Checkpoints by partition, for any number of workers, with a manifest and a pointer.

Their files are described in `schemas.checkpoints`. Every worker writes its partitions into a new
slot; when all have finished, worker 0 writes the slot's manifest and then replaces the pointer.
The slot of the best epoch is kept as well.

A thread may write a copy of the tables while training goes on; the pointer is then replaced at
a later step. Until then the previous checkpoint is valid, and all its files are there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from safetensors.torch import load as load_tensors
from torch import Tensor

from embedmill.pipeline.errors import CorruptArtifactError, StaleArtifactError
from embedmill.pipeline.store.lease import FenceCheck
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.store.stored_json import UNREADABLE
from embedmill.pipeline.train.checkpoints.partition_files import PartitionWriter, gather_entries
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.plan import Layout
from embedmill.schemas.checkpoints import (
    FORMAT,
    POINTER,
    TRIALS,
    CheckpointManifest,
    Pointer,
    StoredCursor,
    StoredIdentity,
    manifest_of,
    parts_of,
)
from embedmill.schemas.files import JsonFile, format_of
from embedmill.schemas.manifest import FileEntry

__all__ = ["Checkpoints", "Cursor", "Identity", "discard", "stored_files"]

T = TypeVar("T")


@dataclass(frozen=True)
class Identity:
    """What a training is made from; a checkpoint of another identity cannot be resumed."""

    fingerprint: str
    config: dict[str, Any]
    inputs: dict[str, str]


@dataclass(frozen=True)
class Cursor:
    """How far training is.

    Args:
        epoch: finished epochs.
        step: finished steps of the next epoch.
        loss: sum of the losses of these steps, each times the size of its batch.
        history: an entry for each finished epoch.
        best_epoch: counted from 1; 0: none yet.
        best_slot: slot of the best epoch's checkpoint.
        refit: in a refit, the train loss of each of its epochs; before it, None.
    """

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_slot: str = ""
    refit: list[float] | None = None

    @property
    def slot(self) -> str:
        """Folder of this cursor's checkpoint."""
        phase = "epoch" if self.refit is None else "refit"
        return f"{phase}-{self.epoch:05d}-{self.step:07d}"


@dataclass
class Checkpoints:
    """Checkpoints of one training, seen from one worker; at most one is being written.

    `fence` is checked before the pointer is replaced, where the training has one.
    """

    storage: Storage
    identity: Identity
    layout: Layout
    group: Group
    fence: FenceCheck | None = None
    superseded: list[str] = field(default_factory=list)
    latest: str = ""
    _pending: Cursor | None = None  # of the checkpoint that is being written
    _writer: PartitionWriter | None = None

    def find(self) -> Cursor | None:
        """The latest checkpoint's cursor, or None where there is no checkpoint.

        Raises:
            StaleArtifactError: it was made from another config or other inputs, or is in another
                format.
            CorruptArtifactError: its manifest is damaged.
        """
        with self.group.fail_together():
            pointer = _pointer(self.storage)
            if pointer is None:
                return None
            manifest = self._manifest(pointer.slot, pointer.sha256)
            self._check_identity(manifest.identity)
        self.latest, self.superseded = pointer.slot, pointer.superseded
        return Cursor(**manifest.cursor.as_json())

    def read(self, slot: str, load: Callable[[int, dict[str, Tensor]], None]) -> None:
        """Read a checkpoint, one partition after the other.

        Args:
            slot: its folder.
            load: called with the number and the tensors of each owned partition.

        Raises:
            CorruptArtifactError: a file is missing, or differs from its sha256.
        """
        with self.group.fail_together():
            manifest = self._manifest(slot)
            for partition in self.layout.owned:
                path = parts_of(slot).path(partition)
                data = _read_present(self.storage, path)
                if hashlib.sha256(data).hexdigest() != manifest.files[path]:
                    raise _damaged(self.storage.url(path))
                load(partition, load_tensors(data))

    def begin(
        self, cursor: Cursor, tensors: Callable[[int], dict[str, Tensor]], *, copied: bool
    ) -> None:
        """Start to write a checkpoint, after finishing the previous one; a collective.

        Args:
            cursor: how far training is.
            tensors: returns a copy of an owned partition's rows and optimizer state.
            copied: copy all partitions now and write them while training goes on, which needs
                the memory of the tables once more; `poll` or `finish` makes the checkpoint
                valid. If not, write one partition after the other and finish at once. The same
                at all workers.
        """
        self.finish()
        owned = self.layout.owned
        paths = [parts_of(cursor.slot).path(partition) for partition in owned]
        if copied:
            # Removed from the list as they are written, so that memory is freed piece by piece.
            copies = [tensors(partition) for partition in reversed(owned)]
            partitions = (copies.pop() for _ in owned)
        else:
            partitions = (tensors(partition) for partition in owned)
        self._writer = PartitionWriter(self.storage, paths, partitions)
        self._pending = cursor
        if copied:
            self._writer.start()
        else:
            self._writer.run()
            self.finish()

    def poll(self) -> None:
        """Finish the pending checkpoint if all workers have written their partitions.

        A collective: every worker calls it after the same steps.
        """
        if self._writer and not self.group.max(int(self._writer.is_alive())):
            self.finish()

    def finish(self) -> None:
        """Wait until the pending checkpoint, if any, is written, and make it valid; a collective.

        Removes the slots that it supersedes, except that of the best epoch.
        """
        if self._writer is None or self._pending is None:
            return
        cursor = self._pending
        with self.group.fail_together():
            written = self._writer.result()
        self._writer = None
        entries = gather_entries(
            written, self.layout, self.group, parts_of(cursor.slot).path, rows=None
        )
        previous = [*self.superseded, *([self.latest] if self.latest else [])]
        unused = [s for s in previous if s not in (cursor.slot, cursor.best_slot)]
        with self.group.fail_together():
            if self.group.rank == 0:
                self._publish(cursor, entries, unused)
        # The best slot is superseded, too, when a better one takes its place.
        kept = [s for s in previous if s == cursor.best_slot != cursor.slot]
        self.latest, self.superseded = cursor.slot, kept

    def close(self) -> None:
        """Wait for files that are still being written, without making the checkpoint valid."""
        if self._writer and self._writer.is_alive():
            self._writer.join()

    def _publish(self, cursor: Cursor, entries: list[FileEntry], unused: list[str]) -> None:
        """Write the manifest, then the pointer; then remove the slots that are unused now."""
        file, partitions = manifest_of(cursor.slot), self.layout.partitions
        manifest = CheckpointManifest(
            format=FORMAT,
            partitions=partitions,
            identity=StoredIdentity(**asdict(self.identity)),
            cursor=StoredCursor(**asdict(cursor)),
            files={e.path: e.sha256 for e in entries},
        )
        data = file.encode(manifest)
        self.storage.write(file.path, data)
        pointer = Pointer(
            slot=cursor.slot,
            best=cursor.best_slot,
            sha256=hashlib.sha256(data).hexdigest(),
            superseded=[*unused, *([cursor.best_slot] if cursor.best_slot else [])],
            partitions=partitions,
        )
        if self.fence is not None:
            self.fence.check()
        self.storage.write(POINTER.path, POINTER.encode(pointer))
        for slot in unused:
            _remove(self.storage, slot, partitions)

    def _manifest(self, slot: str, sha256: str = "") -> CheckpointManifest:
        file = manifest_of(slot)
        data = _read_present(self.storage, file.path)
        if sha256 and hashlib.sha256(data).hexdigest() != sha256:
            raise _damaged(self.storage.url(file.path))
        stored = format_of(data)
        if stored not in (None, FORMAT):
            raise StaleArtifactError(
                f"there is a checkpoint in format {stored}, this program reads format {FORMAT}",
                where=self.storage.url(file.path),
                todo="Resume with the release that wrote it, or run again with --rebuild to start "
                "over",
            )
        return _decode(self.storage, file, data)

    def _check_identity(self, stored: StoredIdentity) -> None:
        if stored.fingerprint == self.identity.fingerprint:
            return
        raise StaleArtifactError(
            f"there is a checkpoint of another config: {_difference(stored, self.identity)}",
            where=self.storage.root,
            todo="Change it back to resume, or run again with --rebuild to start over",
        )


def discard(storage: Storage) -> None:
    """Remove all checkpoints of a train artifact, the pointer last, and trials."""
    storage.remove(TRIALS.path)
    try:
        pointer = _pointer(storage)
    except CorruptArtifactError:
        pointer = None  # the slots that it names are unknown
        storage.remove(POINTER.path)
    if pointer is None:
        return
    for slot in {pointer.slot, pointer.best, *pointer.superseded} - {""}:
        _remove(storage, slot, pointer.partitions)
    storage.remove(POINTER.path)


def stored_files(storage: Storage) -> list[str]:
    """Paths of the files of the checkpoints that the pointer names; none where there is none."""
    pointer = _pointer(storage)
    if pointer is None:
        return []
    slots = sorted({pointer.slot, pointer.best} - {""})
    parts = [parts_of(slot).path(n) for slot in slots for n in range(pointer.partitions)]
    return [*parts, *(manifest_of(slot).path for slot in slots)]


def _remove(storage: Storage, slot: str, partitions: int) -> None:
    storage.remove(manifest_of(slot).path)
    for partition in range(partitions):
        storage.remove(parts_of(slot).path(partition))


def _pointer(storage: Storage) -> Pointer | None:
    try:
        data = storage.read(POINTER.path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return _decode(storage, POINTER, data)


def _read_present(storage: Storage, path: str) -> bytes:
    try:
        return storage.read(path)
    except FileNotFoundError:
        raise _damaged(storage.url(path)) from None


def _decode(storage: Storage, file: JsonFile[T], data: bytes) -> T:
    try:
        return file.decode(data)
    except UNREADABLE:
        raise _damaged(storage.url(file.path)) from None


def _damaged(where: str) -> CorruptArtifactError:
    return CorruptArtifactError(
        "a checkpoint is damaged or missing",
        where=where,
        todo="Run again with --rebuild to start the training over",
    )


def _difference(stored: StoredIdentity, current: Identity) -> str:
    """The first difference of two identities, in words."""
    for key in sorted(stored.config.keys() | current.config.keys()):
        before, after = stored.config.get(key), current.config.get(key)
        if before != after:
            return f"{key} was {json.dumps(before)}, is now {json.dumps(after)}"
    for stage, content in sorted(current.inputs.items()):
        if stored.inputs.get(stage) != content:
            return f"its input '{stage}' has changed"
    return "it was made by another version of this program"
