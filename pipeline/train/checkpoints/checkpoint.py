"""Checkpoints by partition, for any number of workers, with a manifest and a pointer.

    train/checkpoints/latest.json                   which slots are valid
    train/checkpoints/<slot>/manifest.json          cursor, history, sha256 of each part
    train/checkpoints/<slot>/part-PPPPP.safetensors rows and optimizer state of partition P

Every worker writes its partitions into a new slot; when all have finished, worker 0 writes the
slot's manifest and then replaces the pointer. The slot of the best epoch is kept as well.

A thread may write a copy of the tables while training goes on; the pointer is then replaced at
a later step. Until then the previous checkpoint is valid, and all its files are there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from safetensors.torch import load as load_tensors
from torch import Tensor

from embedmill.pipeline.errors import CorruptArtifactError, StaleArtifactError
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.train.checkpoints.partition_files import PartitionWriter, gather_entries
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.plan import Layout
from embedmill.schemas.manifest import FileEntry

__all__ = ["Checkpoints", "Cursor", "Identity", "discard"]

_FORMAT = 1
_POINTER = "checkpoints/latest.json"


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
    """Checkpoints of one training, seen from one worker; at most one is being written."""

    storage: Storage
    identity: Identity
    layout: Layout
    group: Group
    superseded: list[str] = field(default_factory=list)
    latest: str = ""
    _pending: Cursor | None = None  # of the checkpoint that is being written
    _writer: PartitionWriter | None = None

    def find(self) -> Cursor | None:
        """The latest checkpoint's cursor, or None where there is no checkpoint.

        Raises:
            StaleArtifactError: it was made from another config or other inputs.
            CorruptArtifactError: its manifest is damaged.
        """
        with self.group.fail_together():
            pointer = _pointer(self.storage)
            if pointer is None:
                return None
            manifest = self._manifest(pointer["slot"], pointer["sha256"])
            self._check_identity(manifest)
        self.latest, self.superseded = pointer["slot"], pointer["superseded"]
        return Cursor(**manifest["cursor"])

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
                path = _partition_path(slot, partition)
                data = _read_present(self.storage, path)
                if hashlib.sha256(data).hexdigest() != manifest["files"][path]:
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
        paths = [_partition_path(cursor.slot, partition) for partition in owned]
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
            written, self.layout, self.group, lambda p: _partition_path(cursor.slot, p), rows=None
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
        manifest = {
            "format": _FORMAT,
            "partitions": self.layout.partitions,
            "identity": asdict(self.identity),
            "cursor": asdict(cursor),
            "files": {e.path: e.sha256 for e in entries},
        }
        data = _json(manifest)
        self.storage.write(f"checkpoints/{cursor.slot}/manifest.json", data)
        pointer = {
            "slot": cursor.slot,
            "best": cursor.best_slot,
            "sha256": hashlib.sha256(data).hexdigest(),
            "superseded": [*unused, *([cursor.best_slot] if cursor.best_slot else [])],
            "partitions": self.layout.partitions,
        }
        self.storage.write(_POINTER, _json(pointer))
        for slot in unused:
            _remove(self.storage, slot, self.layout.partitions)

    def _manifest(self, slot: str, sha256: str = "") -> dict[str, Any]:
        path = f"checkpoints/{slot}/manifest.json"
        data = _read_present(self.storage, path)
        if sha256 and hashlib.sha256(data).hexdigest() != sha256:
            raise _damaged(self.storage.url(path))
        manifest: dict[str, Any] = json.loads(data)
        return manifest

    def _check_identity(self, manifest: dict[str, Any]) -> None:
        stored = manifest["identity"]
        if stored["fingerprint"] == self.identity.fingerprint:
            return
        raise StaleArtifactError(
            f"there is a checkpoint of another config: {_difference(stored, self.identity)}",
            where=self.storage.root,
            todo="Change it back to resume, or run again with --rebuild to start over",
        )


def discard(storage: Storage) -> None:
    """Remove all checkpoints of a train artifact, the pointer last."""
    try:
        pointer = _pointer(storage)
    except CorruptArtifactError:
        pointer = None  # the slots that it names are unknown
        storage.remove(_POINTER)
    if pointer is None:
        return
    for slot in {pointer["slot"], pointer["best"], *pointer["superseded"]} - {""}:
        _remove(storage, slot, pointer["partitions"])
    storage.remove(_POINTER)


def _remove(storage: Storage, slot: str, partitions: int) -> None:
    storage.remove(f"checkpoints/{slot}/manifest.json")
    for partition in range(partitions):
        storage.remove(_partition_path(slot, partition))


def _partition_path(slot: str, partition: int) -> str:
    return f"checkpoints/{slot}/part-{partition:05d}.safetensors"


def _pointer(storage: Storage) -> dict[str, Any] | None:
    try:
        pointer: dict[str, Any] = json.loads(storage.read(_POINTER))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        raise _damaged(storage.url(_POINTER)) from None
    return pointer


def _read_present(storage: Storage, path: str) -> bytes:
    try:
        return storage.read(path)
    except FileNotFoundError:
        raise _damaged(storage.url(path)) from None


def _damaged(where: str) -> CorruptArtifactError:
    return CorruptArtifactError(
        "a checkpoint is damaged or missing",
        where=where,
        todo="Run again with --rebuild to start the training over",
    )


def _difference(stored: dict[str, Any], current: Identity) -> str:
    """The first difference of two identities, in words."""
    for key in sorted(stored["config"].keys() | current.config.keys()):
        before, after = stored["config"].get(key), current.config.get(key)
        if before != after:
            return f"{key} was {json.dumps(before)}, is now {json.dumps(after)}"
    for stage, content in sorted(current.inputs.items()):
        if stored["inputs"].get(stage) != content:
            return f"its input '{stage}' has changed"
    return "it was made by another version of this program"


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, indent=1, allow_nan=False).encode() + b"\n"
