"""What the pointer of a training's checkpoints names: read, listed, and removed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from embedmill.pipeline.errors import CorruptArtifactError
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.store.stored_json import UNREADABLE
from embedmill.schemas.checkpoints import FOLDER, POINTER, TRIALS, Pointer, manifest_of, parts_of
from embedmill.schemas.files import JsonFile

__all__ = [
    "damaged",
    "decode",
    "discard",
    "read_pointer",
    "read_present",
    "remove_slots",
    "stored_files",
]

T = TypeVar("T")


def discard(storage: Storage) -> None:
    """Remove all checkpoints of a train artifact, the pointer last, and trials."""
    storage.remove(TRIALS.path)
    try:
        pointer = read_pointer(storage)
    except CorruptArtifactError:
        pointer = None  # the slots that it names are unknown
        storage.remove(POINTER.path)
    if pointer is None:
        return
    if storage.is_object_store:
        # A training that was stopped before the pointer named a slot did not begin it again if its
        # checkpoints came at other times.
        storage.remove(POINTER.path)
        storage.at(FOLDER).clear()
        return
    remove_slots(
        storage, {pointer.slot, pointer.best, *pointer.superseded} - {""}, pointer.partitions
    )
    storage.remove(POINTER.path)


def stored_files(storage: Storage) -> list[str]:
    """Paths of the files of the checkpoints that the pointer names; none where there is none."""
    pointer = read_pointer(storage)
    if pointer is None:
        return []
    slots = sorted({pointer.slot, pointer.best} - {""})
    parts = [parts_of(slot).path(n) for slot in slots for n in range(pointer.partitions)]
    return [*parts, *(manifest_of(slot).path for slot in slots)]


def remove_slots(storage: Storage, slots: Iterable[str], partitions: int) -> None:
    """Remove the files of checkpoints."""
    paths = []
    for slot in slots:
        paths.append(manifest_of(slot).path)
        paths += [parts_of(slot).path(partition) for partition in range(partitions)]
    if paths:
        storage.remove_all(paths)


def read_pointer(storage: Storage) -> Pointer | None:
    """The pointer; None where there is no checkpoint."""
    try:
        data = storage.read(POINTER.path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return decode(storage, POINTER, data)


def read_present(storage: Storage, path: str) -> bytes:
    """The bytes of a file that a checkpoint must have."""
    try:
        return storage.read(path)
    except FileNotFoundError:
        raise damaged(storage.url(path)) from None


def decode(storage: Storage, file: JsonFile[T], data: bytes) -> T:
    """A file of checkpoints; CorruptArtifactError where it is damaged."""
    try:
        return file.decode(data)
    except UNREADABLE:
        raise damaged(storage.url(file.path)) from None


def damaged(where: str) -> CorruptArtifactError:
    """The error for a checkpoint that cannot be used."""
    return CorruptArtifactError(
        "a checkpoint is damaged or missing",
        where=where,
        todo="Run again with --rebuild to start the training over",
    )
