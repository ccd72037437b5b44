"""Names of files of artifacts are spelled in `schemas/` and `pipeline/views/` alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedmill.schemas import evaluate, events, export, index, report, shards, train, vocab
from embedmill.schemas.files import JsonFile, PartFiles

ROOT = Path(__file__).parents[1]
STAGES = (events, vocab, shards, train, export, index, evaluate, report)


def names() -> set[str]:
    """Names of single files, from the modules of the stages, and what all numbered files share."""
    found = {"part-"}
    for stage in STAGES:
        for name, value in vars(stage).items():
            if isinstance(value, JsonFile):
                found.add(value.path)
            elif name.isupper() and isinstance(value, str) and "." in value:
                found.add(value)
            elif isinstance(value, PartFiles):
                assert value.path(0).split("/")[1].startswith("part-")
    return found


def spelled(path: Path) -> Iterator[str]:
    """Names in the strings of a module; docstrings may name files."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            text = node.value
            yield from (n for n in names() if text == n or (n == "part-" and n in text))


def modules() -> Iterator[str]:
    for package in ("pipeline", "jobs", "embedmill"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith("pipeline/views/"):
                yield name


def test_the_names_are_those_of_the_schemas() -> None:
    assert {"spec.json", "items.parquet", "items.faiss", "index.html", "part-"} <= names()


@pytest.mark.parametrize("name", sorted(modules()))
def test_no_module_spells_the_name_of_a_file(name: str) -> None:
    assert sorted(set(spelled(ROOT / name))) == []
