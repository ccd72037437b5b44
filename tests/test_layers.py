"""Imports point down, and each engine stays in its room."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GROUND = {
    "answers", "artifact", "cache", "config", "contracts", "datasets", "embeddings", "errors",
    "idfile", "log", "memory", "parquet", "run", "score", "sql", "storage", "terminal", "toml",
}  # fmt: skip
ROOMS = {
    "prepare", "train", "export", "index", "evaluate", "report", "lookup", "recommendations",
    "formats",
}  # fmt: skip
# Engine → modules (by prefix) that may import it.
ENGINES = {
    "pyspark": ("pipeline.prepare", "jobs"),
    "pysail": ("pipeline.prepare",),
    "ray": ("jobs",),
    "faiss": ("pipeline.index", "pipeline.formats"),
    "lancedb": ("pipeline.formats",),
    "qdrant_client": ("pipeline.formats",),
    "duckdb": ("pipeline.sql", "pipeline.prepare.filters"),
    "fsspec": ("pipeline.storage",),
    "pydantic": ("pipeline.config", "pipeline.artifact", "schemas"),
    "torch": ("pipeline.train", "pipeline.score", "pipeline.export", "pipeline.index",
              "pipeline.evaluate", "pipeline.report", "pipeline.lookup", "pipeline.formats",
              "jobs.train"),
    "typer": ("pipeline.cli",),
    "rich": ("pipeline.answers", "pipeline.terminal"),
}  # fmt: skip
# Lookups read an index, formats choose the users that it was measured with: the one room that
# others may use.
MAY_IMPORT = {"lookup": {"index"}, "recommendations": {"index"}, "formats": {"index"}}


def modules() -> Iterator[tuple[str, Path]]:
    for package in ("schemas", "pipeline", "jobs"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            yield name.removesuffix(".__init__"), path


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            found |= {f"{module}.{alias.name}" for alias in node.names} | {module}
    return found


ALL = dict(modules())


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if parts[0] == "pipeline" and len(parts) > 1 else ""


@pytest.mark.parametrize("name", ALL)
def test_engines_stay_in_their_rooms(name: str) -> None:
    for module in imports(ALL[name]):
        allowed = ENGINES.get(module.split(".")[0])
        if allowed is not None:
            assert name.startswith(allowed), f"{name} imports {module}"


@pytest.mark.parametrize("name", ALL)
def test_imports_point_down(name: str) -> None:
    package, own = name.split(".")[0], room(name)
    for module in imports(ALL[name]):
        other = room(module)
        if package == "schemas":
            assert not module.startswith(("pipeline", "jobs")), f"{name} imports {module}"
        if package == "pipeline" and own != "cli":
            assert not module.startswith("jobs"), f"{name} imports {module}"
        if own in GROUND:
            assert other not in ROOMS | {"cli"}, f"{name} imports {module}"
        if own in ROOMS and other in ROOMS and other != own:
            assert other in MAY_IMPORT.get(own, set()), f"{name} imports {module}"


def test_every_module_has_its_place() -> None:
    known = GROUND | ROOMS | {"", "cli"}
    assert {room(name) for name in ALL} <= known


def test_no_vague_names() -> None:
    vague = {"utils", "common", "helpers", "manager", "core", "base", "misc"}
    assert not {name for name in ALL if set(name.split(".")) & vague}


@pytest.mark.parametrize("module", ["pipeline.config", "pipeline.storage", "pipeline.artifact"])
def test_ground_floor_loads_no_engine(module: str) -> None:
    code = (
        f"import {module}, sys; "
        "print(*sorted({'pyspark', 'ray', 'torch', 'faiss', 'duckdb'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert answer.stdout.strip() == ""


def test_jobs_and_stages_share_their_names() -> None:
    from schemas.stages import STAGES

    files = {path.stem for path in (ROOT / "jobs").glob("*.py")}
    assert files == {*STAGES, "all", "cluster", "launch", "mailbox", "pool", "profile", "__init__"}
    for stage, contract in STAGES.items():
        left = list(STAGES)[: list(STAGES).index(stage)]
        assert set(contract.inputs) <= set(left), f"{stage} reads to its right"
