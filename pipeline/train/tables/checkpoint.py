"""Checkpoints by partition: no world size in them, sealed by a manifest and a pointer.

    train/checkpoints/latest.json                   which slots count
    train/checkpoints/<slot>/manifest.json          cursor, history, sha256 of each part
    train/checkpoints/<slot>/part-PPPPP.safetensors rows and optimizer state of partition P

Every worker writes its own parts into a new slot; when all have, worker 0 writes the slot's
manifest and then replaces the pointer. The slot of the best epoch is kept beside the latest.

Training goes on while the parts of a copy of the tables are written by a thread; the pointer
moves at a later step. Until then the checkpoint before counts, and all its files are there.
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
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.plan import Layout
from embedmill.pipeline.train.tables.partition_files import PartWriter, entries_of
from embedmill.schemas.manifest import FileEntry

__all__ = ["Checkpoints", "Cursor", "Identity", "discard"]

_FORMAT = 1
_POINTER = "checkpoints/latest.json"


@dataclass(frozen=True)
class Identity:
    """What a checkpoint was made from: it resumes nothing else."""

    fingerprint: str
    config: dict[str, Any]
    inputs: dict[str, str]


@dataclass(frozen=True)
class Cursor:
    """How far training is: `epoch` epochs and `step` steps of the next one are done.

    `loss` is the sum of that epoch's batch losses so far, times their sizes. `history` has
    one entry per finished epoch, `best_epoch` counts from 1 (0: none yet). In a refit,
    `refit` has the train loss of each of its epochs; before, it is None.
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
        """Name of the folder of this cursor's checkpoint."""
        phase = "epoch" if self.refit is None else "refit"
        return f"{phase}-{self.epoch:05d}-{self.step:07d}"


@dataclass
class Checkpoints:
    """Checkpoints of one training, seen from one worker; one at most is being written."""

    storage: Storage
    identity: Identity
    layout: Layout
    group: Group
    superseded: list[str] = field(default_factory=list)
    latest: str = ""
    _begun: Cursor | None = None
    _writing: PartWriter | None = None

    def find(self) -> Cursor | None:
        """The latest checkpoint's cursor, or None where there is no checkpoint.

        Raises:
            StaleArtifactError: it was made from another config or other inputs.
            CorruptArtifactError: its manifest is damaged.
        """
        with self.group.agreed():
            pointer = _pointer(self.storage)
            if pointer is None:
                return None
            manifest = self._manifest(pointer["slot"], pointer["sha256"])
            self._same(manifest)
        self.latest, self.superseded = pointer["slot"], pointer["superseded"]
        return Cursor(**manifest["cursor"])

    def read(self, slot: str, load: Callable[[int, dict[str, Tensor]], None]) -> None:
        """Hand each owned partition's tensors to `load`; files are checked against their sha256.

        One partition is held at a time.
        """
        with self.group.agreed():
            manifest = self._manifest(slot)
            for partition in self.layout.owned:
                path = _part(slot, partition)
                data = _present(self.storage, path)
                if hashlib.sha256(data).hexdigest() != manifest["files"][path]:
                    raise _damaged(self.storage.url(path))
                load(partition, load_tensors(data))

    def begin(
        self, cursor: Cursor, tensors: Callable[[int], dict[str, Tensor]], *, copied: bool
    ) -> None:
        """Store what `tensors` gives for each owned partition.

        A collective, as it finishes the one before.

        Args:
            cursor: how far training is.
            tensors: a partition's rows and state, a copy.
            copied: copy all now and write them while training goes on, which takes the memory
                of the tables once more; `poll` or `finish` makes them the latest. Else write
                one partition after the other and finish at once. The same at all workers.
        """
        self.finish()
        owned = self.layout.owned
        paths = [_part(cursor.slot, partition) for partition in owned]
        if copied:
            # Taken from the list as they are written: the memory is given back piece by piece.
            copies = [tensors(partition) for partition in reversed(owned)]
            parts = (copies.pop() for _ in owned)
        else:
            parts = (tensors(partition) for partition in owned)
        self._writing = PartWriter(self.storage, paths, parts)
        self._begun = cursor
        if copied:
            self._writing.start()
        else:
            self._writing.run()
            self.finish()

    def poll(self) -> None:
        """Seal the checkpoint that was begun, where all workers have written their parts.

        A collective, which every worker calls after the same steps.
        """
        if self._writing and not self.group.max(int(self._writing.is_alive())):
            self.finish()

    def finish(self) -> None:
        """Wait until all workers have written their parts, and seal what was begun, if anything.

        The files of superseded slots are removed, but for the slot of the best epoch.
        """
        if self._writing is None or self._begun is None:
            return
        cursor = self._begun
        with self.group.agreed():
            written = self._writing.result()
        self._writing = None
        entries = entries_of(
            written, self.layout, self.group, lambda p: _part(cursor.slot, p), rows=None
        )
        before = [*self.superseded, *([self.latest] if self.latest else [])]
        gone = [s for s in before if s not in (cursor.slot, cursor.best_slot)]
        with self.group.agreed():
            if self.group.rank == 0:
                self._seal(cursor, entries, gone)
        # The best slot joins the superseded ones as soon as a better one takes its place.
        kept = [s for s in before if s == cursor.best_slot != cursor.slot]
        self.latest, self.superseded = cursor.slot, kept

    def close(self) -> None:
        """Wait for what is still being written, without making it the latest."""
        if self._writing and self._writing.is_alive():
            self._writing.join()

    def _seal(self, cursor: Cursor, entries: list[FileEntry], gone: list[str]) -> None:
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
            "superseded": [*gone, *([cursor.best_slot] if cursor.best_slot else [])],
            "partitions": self.layout.partitions,
        }
        self.storage.write(_POINTER, _json(pointer))
        for slot in gone:
            _remove(self.storage, slot, self.layout.partitions)

    def _manifest(self, slot: str, sha256: str = "") -> dict[str, Any]:
        path = f"checkpoints/{slot}/manifest.json"
        data = _present(self.storage, path)
        if sha256 and hashlib.sha256(data).hexdigest() != sha256:
            raise _damaged(self.storage.url(path))
        manifest: dict[str, Any] = json.loads(data)
        return manifest

    def _same(self, manifest: dict[str, Any]) -> None:
        then = manifest["identity"]
        if then["fingerprint"] == self.identity.fingerprint:
            return
        raise StaleArtifactError(
            f"training stopped half-way with another config: {_changed(then, self.identity)}",
            where=self.storage.root,
            todo="Put it back to go on, or run again with --rebuild to begin anew",
        )


def discard(storage: Storage) -> None:
    """Remove all checkpoints of a train artifact; its pointer goes last."""
    try:
        pointer = _pointer(storage)
    except CorruptArtifactError:
        pointer = None  # it names no slots that can be trusted
        storage.remove(_POINTER)
    if pointer is None:
        return
    for slot in {pointer["slot"], pointer["best"], *pointer["superseded"]} - {""}:
        _remove(storage, slot, pointer["partitions"])
    storage.remove(_POINTER)


def _remove(storage: Storage, slot: str, partitions: int) -> None:
    storage.remove(f"checkpoints/{slot}/manifest.json")
    for partition in range(partitions):
        storage.remove(_part(slot, partition))


def _part(slot: str, partition: int) -> str:
    return f"checkpoints/{slot}/part-{partition:05d}.safetensors"


def _pointer(storage: Storage) -> dict[str, Any] | None:
    try:
        pointer: dict[str, Any] = json.loads(storage.read(_POINTER))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        raise _damaged(storage.url(_POINTER)) from None
    return pointer


def _present(storage: Storage, path: str) -> bytes:
    try:
        return storage.read(path)
    except FileNotFoundError:
        raise _damaged(storage.url(path)) from None


def _damaged(where: str) -> CorruptArtifactError:
    return CorruptArtifactError(
        "a checkpoint is damaged or missing",
        where=where,
        todo="Run again with --rebuild to begin the training anew",
    )


def _changed(then: dict[str, Any], now: Identity) -> str:
    for key in sorted(then["config"].keys() | now.config.keys()):
        before, after = then["config"].get(key), now.config.get(key)
        if before != after:
            return f"{key} was {json.dumps(before)}, is now {json.dumps(after)}"
    for stage, content in sorted(now.inputs.items()):
        if then["inputs"].get(stage) != content:
            return f"its input '{stage}' has changed"
    return "it was made by another version of this program"


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, indent=1, allow_nan=False).encode() + b"\n"
