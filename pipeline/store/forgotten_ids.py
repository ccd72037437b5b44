"""Forgotten ids below a root, each known by a hash with a key.

Whoever has the list and not the key cannot try ids against it. Both lie below the root, because
every task that reads a log needs them: keep readers of the root's `_forget/` few.

Legend: N ids.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedmill.pipeline.store.storage import ExistsError, Storage
from embedmill.pipeline.store.stored_json import read_stored
from embedmill.schemas.erasure import IDS, KEY, HashKey, StoredForgottenIds

__all__ = ["SIDES", "ForgottenIds", "add_forgotten", "read_forgotten"]

SIDES = ("users", "items")
_DAMAGED = "Restore the file: without it forgotten ids would come back"
# Fields of a line of text, and words of it: an id may be either.
_SEPARATORS = (re.compile(rb"[,;\t|\x01\r\n]"), re.compile(rb"[^0-9A-Za-z_.@+\x80-\xff-]+"))


@dataclass(frozen=True)
class ForgottenIds:
    """Hashes of forgotten ids by side, and their key. False where there are none."""

    key: bytes = b""
    hashes: Mapping[str, frozenset[str]] = field(
        default_factory=lambda: {side: frozenset() for side in SIDES}
    )

    def __bool__(self) -> bool:
        """Whether any id is forgotten."""
        return any(self.hashes.values())

    def hash(self, side: str, raw: str | bytes) -> str:
        """The hash of a raw id of "users" or "items"."""
        data = raw.encode() if isinstance(raw, str) else raw
        return hashlib.blake2b(data, digest_size=16, key=self.key, person=side.encode()).hexdigest()

    def named(self, side: str, ids: Iterable[str | None]) -> dict[str, str]:
        """Of some raw ids the forgotten ones, with their hashes."""
        known = self.hashes[side]
        if not known:
            return {}
        found = ((raw, self.hash(side, raw)) for raw in ids if raw is not None)
        return {raw: digest for raw, digest in found if digest in known}

    def mask(self, side: str, ids: pa.Array | pa.ChunkedArray) -> NDArray[np.bool_]:
        """Whether each raw id is forgotten, bool [N]; false for nulls."""
        if not self.hashes[side] or not len(ids):
            return np.zeros(len(ids), bool)
        joined = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
        encoded = joined.dictionary_encode()
        named = self.named(side, encoded.dictionary.to_pylist())
        bad = np.array([raw in named for raw in encoded.dictionary.to_pylist()] + [False])
        place = encoded.indices.fill_null(len(bad) - 1).to_numpy(zero_copy_only=False)
        return bad[place]  # type: ignore[no-any-return]

    def names_any(self, line: bytes) -> bool:
        """Whether a field or a word of a line of text is a forgotten id."""
        parts = {part.strip(b" \"'") for split in _SEPARATORS for part in split.split(line)}
        return any(self.hash(side, one) in self.hashes[side] for side in SIDES for one in parts)


def read_forgotten(root: str) -> ForgottenIds:
    """The forgotten ids below a root.

    Raises:
        CorruptArtifactError: the list or its key is damaged.
    """
    storage = Storage(root)
    stored = read_stored(storage, IDS, _DAMAGED)
    key = read_stored(storage, KEY, _DAMAGED) if stored is not None else None
    if stored is None or key is None:
        return ForgottenIds()
    hashes = {side: frozenset(getattr(stored, side)) for side in SIDES}
    return ForgottenIds(bytes.fromhex(key.key), hashes)


def add_forgotten(root: str, ids: Mapping[str, Iterable[str]]) -> ForgottenIds:
    """Add ids to those that are forgotten below a root, for good.

    Args:
        root: folder or URL of the runs.
        ids: raw ids by side.
    """
    storage = Storage(root)
    known = read_forgotten(root)
    if not known.key:
        with contextlib.suppress(ExistsError):  # of a command that was killed, or another one
            storage.create(KEY.path, KEY.encode(HashKey(key=secrets.token_bytes(32).hex())))
        key = read_stored(storage, KEY, _DAMAGED)
        assert key is not None
        known = ForgottenIds(bytes.fromhex(key.key), known.hashes)
    hashes = {
        side: known.hashes[side] | {known.hash(side, raw) for raw in ids.get(side, ())}
        for side in SIDES
    }
    if hashes != dict(known.hashes):
        stored = StoredForgottenIds(users=sorted(hashes["users"]), items=sorted(hashes["items"]))
        storage.write(IDS.path, IDS.encode(stored))
    return ForgottenIds(known.key, hashes)
