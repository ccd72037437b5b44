"""The targets of the Makefile call commands that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from embedmill.jobs.cli import app
from embedmill.pipeline.config import load

ROOT = Path(__file__).parents[1]
RECIPES = re.findall(
    r"^\t.*\$\(BIN\)/(embedmill|python) +(.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE
)


def test_there_are_recipes() -> None:
    assert {program for program, _ in RECIPES} == {"embedmill", "python"}


@pytest.mark.parametrize("words", [w for program, w in RECIPES if program == "embedmill"])
def test_commands_are_there(words: str) -> None:
    command, *rest = words.split()
    assert command in typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for path in rest:
        if path.endswith(".toml"):
            assert load(ROOT / path).run.name == Path(path).stem


@pytest.mark.parametrize("words", [w for program, w in RECIPES if program == "python"])
def test_scripts_are_there(words: str) -> None:
    script = words.split()[0]
    assert script == "-m" or (ROOT / script).is_file()
