"""Rounds of the storm by their seeds: those that once found something, and one of each kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.storm.__main__ import main

# (kind, seed)
ROUNDS = [("local", 4), ("local", 5), ("processes", 1), ("s3", 1)]


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("kind", "seed"), ROUNDS)
def test_a_round_of_the_storm(kind: str, seed: int, tmp_path: Path) -> None:
    words = ["--seed", str(seed), "--rounds", "1", "--kinds", kind]
    assert main([*words, "--log", str(tmp_path / "storm.jsonl")]) == 0
