"""JSON files that this program wrote, read by somebody who cannot trust what is in them."""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError

from embedmill.pipeline.errors import CorruptArtifactError
from embedmill.pipeline.store.storage import Storage
from embedmill.schemas.files import JsonFile

__all__ = ["UNREADABLE", "first_error", "read_stored"]

T = TypeVar("T")

# What parsers raise on bytes that are not what was written: no JSON, another shape, numbers that
# are too large, nesting that is too deep. Pydantic's ValidationError is a ValueError.
UNREADABLE = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RecursionError,
    OverflowError,
    MemoryError,
)


def read_stored(storage: Storage, file: JsonFile[T], todo: str) -> T | None:
    """What a JSON file says, or None where it is not there.

    Args:
        storage: the folder of the file.
        file: its path and type.
        todo: what the user can do if it is damaged.

    Raises:
        CorruptArtifactError: it is not what was written.
    """
    try:
        data = storage.read(file.path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return file.decode(data)
    except UNREADABLE:
        raise CorruptArtifactError(
            "is damaged: it is not what was written", where=storage.url(file.path), todo=todo
        ) from None


def first_error(error: ValidationError) -> str:
    """The first error of a validation, with the key where it is."""
    first = error.errors(include_url=False, include_context=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    return f"{key}: {first['msg']}" if key else str(first["msg"])
