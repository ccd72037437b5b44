"""Sweeps over many cases, of which `make test` runs a few and `make test-all` every one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pytest

__all__ = ["sweep"]


def sweep(cases: Sequence[Any], *, always: Collection[Any]) -> list[Any]:
    """Values for `parametrize`: those in `always` as they are, the others marked exhaustive."""
    assert set(always) <= set(cases), set(always) - set(cases)
    return [
        case
        if case in always
        else pytest.param(
            *(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.exhaustive
        )
        for case in cases
    ]
