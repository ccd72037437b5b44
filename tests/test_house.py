"""Names of files of artifacts are spelled in the schemas and views alone, and read in views."""

from __future__ import annotations

import ast
import sys
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


# They read the log of a training that has not finished, to go on with it.
OWN_LOG = {"pipeline/train/stage.py", "pipeline/train/logs/step_log.py"}


def file_constants(tree: ast.Module) -> set[str]:
    """Names that a module imports from the schemas and that stand for files of an artifact."""
    files = {
        name
        for stage in STAGES
        for name, value in vars(stage).items()
        if isinstance(value, JsonFile | PartFiles)
        or (name.isupper() and isinstance(value, str) and "." in value)
        or (isinstance(value, dict) and any(isinstance(one, PartFiles) for one in value.values()))
    }
    modules = {stage.__name__ for stage in STAGES}
    return {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in modules
        for alias in node.names
        if alias.name in files
    }


def reads(path: Path) -> Iterator[str]:
    """Calls in a module that read files of artifacts."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    constants = file_constants(tree)
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        named = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)} & constants
        if node.func.attr in ("read_json", "read_table", "read_tables") or (
            node.func.attr in ("read", "open", "batches", "check", "files", "has") and named
        ):
            yield f"line {node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in modules()
        # The readers read raw logs; the store has the functions that views read with; whoever
        # forgets an id writes files anew as they are.
        if not name.startswith(("pipeline/store/", "pipeline/prepare/readers/", "pipeline/forget/"))
    ],
)
def test_artifacts_are_read_through_views(name: str) -> None:
    found = list(reads(ROOT / name))
    assert not found or name in OWN_LOG


def test_a_read_beside_the_views_is_found(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        "from embedmill.schemas.events import DATA, DAYS as days\n"
        "def f(artifact):\n"
        "    artifact.read_json(days)\n"
        "    artifact.files(DATA.folder)\n"
        "    artifact.write_json(days, [])\n"
    )
    assert [line.partition(":")[0] for line in reads(module)] == ["line 3", "line 4"]


def test_no_job_has_the_name_of_a_module_of_python() -> None:
    """The folder of a script comes first: `import profile` in cProfile would find a job."""
    assert {path.stem for path in ROOT.glob("jobs/*")} & sys.stdlib_module_names == set()
