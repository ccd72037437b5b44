"""Checkpoints by partition, for any number of workers, with a manifest and a pointer.

Their files are described in `schemas.checkpoints`. Every worker writes its partitions into a new
slot; when all have finished, worker 0 writes the slot's manifest and then replaces the pointer.
The slot of the best epoch is kept as well.

On an object store, where each partition is a request, checkpoints are some seconds apart: the
tables of a best epoch in between are kept in memory, and written when a checkpoint needs them.

A thread may write a copy of the tables while training goes on; the pointer is then replaced at
a later step. Until then the previous checkpoint is valid, and all its files are there.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from safetensors.torch import load as load_tensors
from torch import Tensor

from embedmill.pipeline.errors import StaleArtifactError
from embedmill.pipeline.store.lease import FenceCheck
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.train.checkpoints.partition_files import PartitionWriter, gather_entries
from embedmill.pipeline.train.checkpoints.stored_slots import (
    damaged,
    decode,
    read_pointer,
    read_present,
    remove_slots,
)
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.plan import Layout
from embedmill.schemas.checkpoints import (
    FORMAT,
    POINTER,
    CheckpointManifest,
    Pointer,
    StoredCursor,
    StoredIdentity,
    manifest_of,
    parts_of,
)
from embedmill.schemas.files import format_of
from embedmill.schemas.manifest import FileEntry

__all__ = ["Checkpoints", "Cursor", "Identity"]

# Seconds between two checkpoints on an object store.
_APART = 30.0


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


@dataclass(frozen=True)
class _Kept:
    """The tables of the best epoch, of the owned partitions, which are in no checkpoint yet."""

    cursor: Cursor
    tensors: dict[int, dict[str, Tensor]]


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
    _kept: _Kept | None = None
    _began: float = field(default_factory=time.monotonic)  # the last one, or the training

    def find(self) -> Cursor | None:
        """The latest checkpoint's cursor, or None where there is no checkpoint.

        Raises:
            StaleArtifactError: it was made from another config or other inputs, or is in another
                format.
            CorruptArtifactError: its manifest is damaged.
        """
        with self.group.fail_together():
            pointer = read_pointer(self.storage)
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
        if self._kept is not None and self._kept.cursor.slot == slot:
            for partition, tensors in self._kept.tensors.items():
                load(partition, tensors)
            return
        with self.group.fail_together():
            manifest = self._manifest(slot)
            for partition in self.layout.owned:
                path = parts_of(slot).path(partition)
                data = read_present(self.storage, path)
                if hashlib.sha256(data).hexdigest() != manifest.files[path]:
                    raise damaged(self.storage.url(path))
                load(partition, load_tensors(data))

    def due(self) -> bool:
        """Whether it is time for a checkpoint: on an object store only after a while; a collective.

        What is not written is done again after a stop, to the same bytes.
        """
        apart = _APART if self.storage.is_object_store else 0.0
        return bool(self.group.max(int(time.monotonic() - self._began >= apart)))

    def keep(self, cursor: Cursor, tensors: Callable[[int], dict[str, Tensor]]) -> None:
        """Keep the tables in memory where they are those of the best epoch so far.

        A refit needs none: its last epoch is what is published.

        Args:
            cursor: how far training is.
            tensors: returns a copy of an owned partition's rows and optimizer state.
        """
        if cursor.refit is None and cursor.best_slot == cursor.slot:
            self._kept = None  # frees those before
            self._kept = _Kept(cursor, {p: tensors(p) for p in self.layout.owned})

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
        self._write_kept(cursor)
        self._began = time.monotonic()
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

    def _write_kept(self, cursor: Cursor) -> None:
        """Write the best epoch's tables where a checkpoint of `cursor` needs them; a collective."""
        kept, self._kept = self._kept, None
        if kept is None or cursor.best_slot != kept.cursor.slot or cursor.slot == cursor.best_slot:
            return
        slot, owned = kept.cursor.slot, self.layout.owned
        paths = [parts_of(slot).path(partition) for partition in owned]
        writer = PartitionWriter(self.storage, paths, (kept.tensors[p] for p in owned))
        writer.run()
        with self.group.fail_together():
            written = writer.result()
        entries = gather_entries(written, self.layout, self.group, parts_of(slot).path, rows=None)
        with self.group.fail_together():
            if self.group.rank == 0:
                self._write_manifest(kept.cursor, entries)
        self.superseded.append(slot)

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
        data, partitions = self._write_manifest(cursor, entries), self.layout.partitions
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
        remove_slots(self.storage, unused, partitions)

    def _write_manifest(self, cursor: Cursor, entries: list[FileEntry]) -> bytes:
        file = manifest_of(cursor.slot)
        data = file.encode(
            CheckpointManifest(
                format=FORMAT,
                partitions=self.layout.partitions,
                identity=StoredIdentity(**asdict(self.identity)),
                cursor=StoredCursor(**asdict(cursor)),
                files={e.path: e.sha256 for e in entries},
            )
        )
        self.storage.write(file.path, data)
        return data

    def _manifest(self, slot: str, sha256: str = "") -> CheckpointManifest:
        file = manifest_of(slot)
        data = read_present(self.storage, file.path)
        if sha256 and hashlib.sha256(data).hexdigest() != sha256:
            raise damaged(self.storage.url(file.path))
        stored = format_of(data)
        if stored not in (None, FORMAT):
            raise StaleArtifactError(
                f"there is a checkpoint in format {stored}, this program reads format {FORMAT}",
                where=self.storage.url(file.path),
                todo="Resume with the release that wrote it, or run again with --rebuild to start "
                "over",
            )
        return decode(self.storage, file, data)

    def _check_identity(self, stored: StoredIdentity) -> None:
        if stored.fingerprint == self.identity.fingerprint:
            return
        raise StaleArtifactError(
            f"there is a checkpoint of another config: {_difference(stored, self.identity)}",
            where=self.storage.root,
            todo="Change it back to resume, or run again with --rebuild to start over",
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
