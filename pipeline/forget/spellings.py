"""How an id may be spelled in bytes: encodings of text, escapes of JSON, CSV and HTML."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable

__all__ = ["LONG", "names_one", "pattern_of", "spellings"]

_FEW = 1000  # ids that a pattern has, whatever they are made of
_WORD = re.compile(r"[0-9A-Za-z_.@+-]+")

# An id of fewer bytes occurs by chance in numbers and in compressed bytes.
LONG = 8
_ENCODINGS = ("utf-8", "utf-16-le", "utf-16-be", "latin-1", "cp1252")


def spellings(raw: str) -> set[bytes]:
    """The bytes that an id may be in a file of text."""
    texts = {
        raw,
        json.dumps(raw)[1:-1],
        json.dumps(raw, ensure_ascii=False)[1:-1],
        raw.replace('"', '""'),
        raw.replace("'", "''"),
        html.escape(raw),
        html.escape(raw, quote=False),
    }
    found = set()
    for text in texts:
        for encoding in _ENCODINGS:
            try:
                found.add(text.encode(encoding))
            except UnicodeEncodeError:
                continue
    return found


def pattern_of(ids: Iterable[str]) -> re.Pattern[bytes] | None:
    """Matches a line of text that names one of some ids; None of no ids.

    Of very many ids those that are words are left out: `ForgottenIds.names_any` finds them by hash.

    A short id counts where no letter, digit or underscore is beside it.
    """
    parts, every = [], list(ids)
    if len(every) > _FEW:
        every = [raw for raw in every if not _WORD.fullmatch(raw)]
    for raw in every:
        for one in sorted(spellings(raw)):
            escaped = re.escape(one)
            short = len(raw.encode()) < LONG
            parts.append(
                rb"(?<![0-9A-Za-z_])" + escaped + rb"(?![0-9A-Za-z_])" if short else escaped
            )
    return re.compile(b"|".join(parts)) if parts else None


def names_one(pattern: re.Pattern[bytes] | None, line: bytes) -> bool:
    """Whether a line names one of the ids of a pattern."""
    return pattern is not None and pattern.search(line) is not None
