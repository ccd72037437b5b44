"""Files of `embedmill forget`, below `_forget/` of the folder that runs lie in.

Raw ids are in none of them. An id is known by a hash with a key, which lies beside the list.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from embedmill.schemas.files import JsonFile, Stored

__all__ = [
    "FOLDER",
    "IDS",
    "KEY",
    "PENDING",
    "ErasedRun",
    "FoundId",
    "HashKey",
    "Pending",
    "PendingRun",
    "Receipt",
    "StoredForgottenIds",
    "Verification",
    "receipt_of",
]

# No run has a name with `_` in front.
FOLDER = "_forget"


class HashKey(Stored):
    """The key of the hashes of forgotten ids, 32 bytes in hexadecimal digits."""

    format: Literal[1] = 1
    key: str


class StoredForgottenIds(Stored):
    """Forgotten ids by side: BLAKE2b of the id with the key, 16 bytes in hexadecimal digits."""

    format: Literal[1] = 1
    users: list[str]
    items: list[str]


class FoundId(Stored):
    """What a run knew of a forgotten id: its row, -1 for none; whether that was live; events."""

    row: int
    live: bool
    events: int


class PendingRun(Stored):
    """What is to be erased in a run.

    Attributes:
        users: by hash.
        items: by hash.
        shared: events of ids without a row of their own: row of the user and of the item, -1 where
            it is a shared one, time and weight.
        vectors: of the rows, float32 in base64, which verification looks for.
        before: content hashes of the stages, as they were.
    """

    users: dict[str, FoundId] = Field({})
    items: dict[str, FoundId] = Field({})
    shared: list[tuple[int, int, int | None, float]] = Field([])
    vectors: list[str] = Field([])
    before: dict[str, str] = Field({})


class Pending(Stored):
    """A command that has not ended; gone when it has.

    `contents` has the new content hash of what was written anew by the old one. `exports` are the
    options of folders of `embedmill export` by their path.
    """

    format: Literal[1] = 1
    runs: dict[str, PendingRun] = Field({})
    contents: dict[str, str] = Field({})
    files: dict[str, str] = Field({})
    exports: dict[str, dict[str, Any]] = Field({})


class ErasedRun(Stored):
    """What was erased in a run: rows by side, events, stages that were written anew.

    `cleared` are stages that had not finished, and whose files were removed.
    """

    run: str
    users: list[int]
    items: list[int]
    events: int
    stages: list[str]
    cleared: list[str]


class Verification(Stored):
    """What was looked at, and where something was found: (file, what)."""

    files: int
    bytes: int
    found: list[tuple[str, str]]


class Receipt(Stored):
    """What a command did, without the ids.

    Attributes:
        created: when it ended (ISO 8601, UTC).
        users: how many users were to be forgotten.
        items: how many items.
        unknown: how many of these ids no run knew.
        runs: those in which something was erased.
        exports: folders of `embedmill export` that were written anew.
        deltas: folders of `embedmill delta` that were written anew.
        verification: null where it was not asked for.
        not_undone: what the command does not do, in words.
    """

    format: Literal[1] = 1
    created: str
    users: int
    items: int
    unknown: int
    runs: list[ErasedRun]
    exports: list[str]
    deltas: list[str]
    verification: Verification | None
    not_undone: list[str]


KEY = JsonFile(f"{FOLDER}/key.json", HashKey)
IDS = JsonFile(f"{FOLDER}/ids.json", StoredForgottenIds)
PENDING = JsonFile(f"{FOLDER}/pending.json", Pending)


def receipt_of(number: int) -> JsonFile[Receipt]:
    """A receipt, counted from 1."""
    return JsonFile(f"{FOLDER}/receipts/{number:06d}.json", Receipt)
