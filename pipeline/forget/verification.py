"""Every byte below a root is looked through for forgotten ids: their text, hashes and vectors.

Text of an id is looked for in all bytes of all files, and in decoded Parquet, where it is at least
`LONG` bytes long and is no id of the other side. Columns of ids are compared with the list of
hashes, so that short ids, and those that earlier commands forgot, are found there too.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embedmill.pipeline.forget.spellings import LONG, spellings
from embedmill.pipeline.store.forgotten_ids import SIDES, ForgottenIds
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.store.stored_json import UNREADABLE
from embedmill.schemas.erasure import FOLDER, IDS, KEY, PENDING, Verification

__all__ = ["Needles", "verify_root"]

_OWN = {KEY.path, IDS.path, PENDING.path}
_COLUMNS = {"user": "users", "item": "items"}
_PIECE = 64 << 20  # bytes read at once
_MOST = 1000  # findings that are listed
_PARQUET = b"PAR1"
_FEW = 64  # needles that are looked for one by one


@dataclass
class Needles:
    """What is looked for in bytes: what it is, by its bytes."""

    kinds: dict[bytes, str] = field(default_factory=dict)

    @staticmethod
    def of(
        ids: Mapping[str, Iterable[str]], forgotten: ForgottenIds, vectors: Iterable[str]
    ) -> Needles:
        """Text and hashes of ids, and vectors.

        Args:
            ids: raw ids by side.
            forgotten: have the hashes.
            vectors: float32 in base64.
        """
        found: dict[bytes, str] = {}
        for side, every in ids.items():
            for raw in every:
                if len(raw.encode()) >= LONG:
                    found |= {
                        one: f"the id of one of the {side}"
                        for one in spellings(raw)
                        if len(one) >= LONG
                    }
                hashes = (forgotten.hash(side, raw), hashlib.sha256(raw.encode()).hexdigest())
                found |= {one.encode(): f"a hash of one of the {side}" for one in hashes}
                found |= {bytes.fromhex(one): f"a hash of one of the {side}" for one in hashes}
        for one in vectors:
            data = base64.b64decode(one)
            found[data] = "a vector"
            half = np.frombuffer(data, np.float32).astype(np.float16).tobytes()
            if len(half) >= 2 * LONG:
                found[half] = "a vector in half precision"
        return Needles(found)

    def within(self, data: bytes) -> set[str]:
        """What is in some bytes; of many needles the first eight bytes are compared first."""
        if len(self.kinds) <= _FEW:
            return {kind for needle, kind in self.kinds.items() if needle in data}
        found = set()
        for shift in range(min(LONG, len(data))):
            start_N = np.frombuffer(data, "<u8", (len(data) - shift) // LONG, shift)
            place_N = np.searchsorted(self._starts, start_N).clip(max=len(self._starts) - 1)
            for at in np.flatnonzero(self._starts[place_N] == start_N).tolist():
                for needle in self._by_start[int(start_N[at])]:
                    if data.startswith(needle, shift + at * LONG):
                        found.add(self.kinds[needle])
        return found

    @functools.cached_property
    def _by_start(self) -> dict[int, list[bytes]]:
        """Needles by their first eight bytes; none is shorter."""
        found: dict[int, list[bytes]] = {}
        for needle in self.kinds:
            found.setdefault(int.from_bytes(needle[:LONG], "little"), []).append(needle)
        return found

    @functools.cached_property
    def _starts(self) -> NDArray[np.uint64]:
        return np.array(sorted(self._by_start), "<u8")

    @property
    def overlap(self) -> int:
        """Bytes that two pieces of a file must have in common."""
        return max(map(len, self.kinds), default=1) - 1


def verify_root(
    places: Iterable[str],
    ids: Mapping[str, Iterable[str]],
    forgotten: ForgottenIds,
    vectors: Iterable[str] = (),
) -> Verification:
    """Look through all files below some places.

    Args:
        places: the root, and other folders.
        ids: raw ids by side.
        forgotten: all forgotten ids.
        vectors: that the ids had, float32 in base64.
    """
    needles = Needles.of(ids, forgotten, vectors)
    files = size = 0
    found: list[tuple[str, str]] = []
    for place in places:
        storage = Storage(place.rstrip("/"))
        for path in storage.files():
            if path in _OWN or path.startswith(f"{FOLDER}/lease/"):
                continue
            files += 1
            kinds, rest = needles.within(path.encode()), b""
            with storage.open(path) as raw:
                while piece := raw.read(_PIECE):
                    size += len(piece)
                    kinds |= needles.within(rest + piece)
                    rest = (rest + piece)[-needles.overlap :] if needles.overlap else b""
                raw.seek(0)
                kinds |= set(_decoded(path, raw, needles, forgotten))
            found += [(storage.url(path), kind) for kind in sorted(kinds)]
    return Verification(files=files, bytes=size, found=found[:_MOST])


def _decoded(path: str, raw: BinaryIO, needles: Needles, forgotten: ForgottenIds) -> Iterator[str]:
    """What is in a file that only shows when it is decoded."""
    if raw.read(len(_PARQUET)) == _PARQUET:
        for batch in pq.ParquetFile(raw).iter_batches(1 << 16):
            yield from _in_columns(path, batch, needles, forgotten)
    elif path.endswith(".json"):
        raw.seek(0)
        try:
            yield from _in_tree(json.loads(raw.read()), "", forgotten)
        except UNREADABLE:
            return


def _in_columns(
    path: str, batch: pa.RecordBatch, needles: Needles, forgotten: ForgottenIds
) -> Iterator[str]:
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        kind = column.type
        if pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_string(kind):
            values = column.dictionary_encode().dictionary.cast(pa.binary()).to_pylist()
            yield from needles.within(b"\n".join(one for one in values if one is not None))
            side = _COLUMNS.get(name) or next((one for one in SIDES if one in path), None)
            is_id = side is not None and name in (*_COLUMNS, "id") and pa.types.is_string(kind)
            if is_id and forgotten.mask(str(side), column).any():
                yield f"the id of one of the {side}"
        elif pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type):
            yield from needles.within(pc.list_flatten(column).to_numpy().tobytes())


def _in_tree(value: Any, side: str, forgotten: ForgottenIds) -> Iterator[str]:
    """Ids under the keys of a side: lists that begin with an id, and objects with an "id"."""
    if isinstance(value, dict):
        for key, one in value.items():
            if key == "id" and side and isinstance(one, str) and forgotten.named(side, [one]):
                yield f"the id of one of the {side}"
            yield from _in_tree(one, key if key in SIDES else side, forgotten)
    elif isinstance(value, list):
        if side and value and isinstance(value[0], str) and forgotten.named(side, value[:1]):
            yield f"the id of one of the {side}"
        for one in value:
            yield from _in_tree(one, side, forgotten)
