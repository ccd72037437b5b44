"""How the files of an artifact are named, and what its JSON files hold.

The modules of the stages declare their files with these types. Whoever writes or reads a file of
an artifact takes its path from there.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter

__all__ = ["JsonFile", "Number", "PartFiles", "Stored", "format_of"]

T = TypeVar("T")
# A number of a JSON file: whole numbers stay whole, so that they are written as they came.
Number = int | float


@dataclass(frozen=True)
class PartFiles:
    """The numbered files of one folder: `FOLDER/part-NNNNN.SUFFIX`, numbers from 0.

    `rows_per_file` is set where files hold contiguous ranges of rows: file n holds rows
    [n * rows_per_file, (n + 1) * rows_per_file). It is 0 where files are partitions.
    """

    folder: str
    suffix: str = "parquet"
    rows_per_file: int = 0

    def path(self, number: int) -> str:
        """Path of a file inside the artifact."""
        return f"{self.folder}/part-{number:05d}.{self.suffix}"

    def number(self, path: str) -> int:
        """The number in a path that `path` has made."""
        return int(path.rpartition("-")[2].partition(".")[0])

    def file_of(self, row: int) -> int:
        """Number of the file that holds a row."""
        return row // self.rows_per_file

    def count(self, rows: int) -> int:
        """How many files hold `rows` rows."""
        return -(-rows // self.rows_per_file)


class Stored(BaseModel):
    """Base of the models of JSON files: frozen, and any key that is not declared is an error.

    Where a field's Python name differs from the key in the file, the key is its alias; fields can
    be given by name.
    """

    # Infinite numbers are never written.
    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False
    )

    def as_json(self) -> dict[str, Any]:
        """What the file holds, by its keys."""
        return self.model_dump(by_alias=True)


def format_of(data: bytes) -> int | None:
    """The number under "format" of a JSON object; None where it has none, or is no JSON.

    It is looked at before the file is decoded: another format may have other keys.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    found = value.get("format") if isinstance(value, dict) else None
    return found if isinstance(found, int) else None


@dataclass(frozen=True)
class JsonFile(Generic[T]):
    """A JSON file of an artifact: its path and the type of what it holds.

    The content of a `volatile` file depends on the time or the machine; it is no part of the
    content hash.
    """

    path: str
    type: type[T]
    volatile: bool = False

    def encode(self, value: T) -> bytes:
        """The bytes of the file: keys sorted, one space of indentation, UTF-8, a final newline.

        Raises:
            pydantic.ValidationError: the value is not of the file's type.
            ValueError: a number is NaN or infinite.
        """
        plain = self._adapter.dump_python(self._adapter.validate_python(value), by_alias=True)
        text = json.dumps(plain, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
        return text.encode() + b"\n"

    def decode(self, data: bytes) -> T:
        """What the bytes of the file say.

        Raises:
            pydantic.ValidationError: they are not JSON, or not of the file's type.
        """
        return self._adapter.validate_json(data)

    @functools.cached_property
    def _adapter(self) -> TypeAdapter[T]:
        return TypeAdapter(self.type)
