"""Rounds of the storm by their seeds: those that once found something, and one of each kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.storm.__main__ import main

# (kind, seed, faults to choose from; '' for all of the kind)
ROUNDS: list[Any] = [
    ("local", 4, ""),
    ("local", 5, ""),
    ("processes", 1, ""),
    ("s3", 1, ""),
    ("s3", 101, "kill store"),
    ("sail", 100, ""),
    ("sail", 102, "pause engine"),
    ("sail", 103, "pause engine"),
    pytest.param("ray", 202, "kill raylet", marks=pytest.mark.ray),
    pytest.param("executors", 201, "kill executor,kill engine", marks=pytest.mark.spark),
]


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("kind", "seed", "faults"), ROUNDS)
def test_a_round_of_the_storm(kind: str, seed: int, faults: str, tmp_path: Path) -> None:
    words = ["--seed", str(seed), "--rounds", "1", "--kinds", kind, "--faults", faults]
    assert main([*words, "--log", str(tmp_path / "storm.jsonl")]) == 0
