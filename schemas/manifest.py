"""The manifest: written last, once, atomically. No manifest, no artifact."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["FORMAT", "FORMAT_WITH_FOLDER", "FileEntry", "InputEntry", "Manifest", "digest"]

FORMAT = 1
# Of a manifest that names the folder of its files, which older readers do not know.
FORMAT_WITH_FOLDER = 2


def digest(value: Any) -> str:
    """Hex sha256 (64 characters) of a JSON value in canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FileEntry(_Frozen):
    """One file of an artifact.

    `path` is relative to the folder of the artifact's files, with forward slashes; `rows` is None
    where the file is not a table. A `volatile` file holds measurements of time (latencies, stage
    seconds): `verify` checks its sha256 like any other, the content hash leaves it out.
    """

    path: str
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    rows: int | None = Field(default=None, ge=0)
    volatile: bool = False


class InputEntry(_Frozen):
    """An artifact that was read: its stage, and the content hash of what was seen of it."""

    stage: str
    content: str


class Manifest(_Frozen):
    """What a stage wrote, from what, and how long it took.

    `content` hashes what was computed: contract, non-volatile files, counters. Two runs of
    one config over one log have equal content, whatever the time, engine or interruption.
    `fingerprint` hashes what it was computed from: contract, config fields, inputs. Files lie below
    `folder` in the artifact's folder, absent where they lie in that folder itself: it is no part
    of the content.
    """

    format: int = FORMAT
    folder: str = Field(
        default="", pattern=r"^(attempt-[0-9]{1,18})?$", exclude_if=lambda value: not value
    )
    stage: str
    contract: str
    version: int
    fingerprint: str
    content: str
    config: dict[str, Any]
    inputs: list[InputEntry]
    sources: dict[str, Any] = {}
    files: list[FileEntry]
    counters: dict[str, int]
    measured: dict[str, float] = {}
    seconds: float
    created: str
    software: dict[str, str] = {}

    @staticmethod
    def content_hash(
        contract: str, version: int, files: list[FileEntry], counters: dict[str, int]
    ) -> str:
        """The content hash of these parts; see the class."""
        kept = [
            [f.path, f.bytes, f.sha256, f.rows]
            for f in sorted(files, key=lambda f: f.path)
            if not f.volatile
        ]
        names = sorted(f.path for f in files if f.volatile)
        return digest([contract, version, kept, names, counters])
