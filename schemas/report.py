"""Artifact `report`: the page, and the figures on it."""

from __future__ import annotations

from typing import Any

from embedmill.schemas.contract import ArtifactContract, Count, Counters
from embedmill.schemas.files import JsonFile

__all__ = ["CONTRACT", "DATA", "PAGE"]

# Everything on the page that depends on the log and the config alone.
DATA = JsonFile("data.json", dict[str, Any])
# The page, with times and versions: volatile.
PAGE = "index.html"


def _status(c: Counters, n: Count) -> str:
    return PAGE


CONTRACT = ArtifactContract(status=_status)
