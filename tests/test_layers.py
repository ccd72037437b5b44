"""Imports point down, and each engine stays in its room."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the ground up. A room imports rooms of the floors below it and nothing beside it.
FLOORS: list[set[str]] = [
    {"schemas"},
    {"child_process", "errors", "log", "memory"},
    {"cpu_time", "extras", "task_pool"},
    {"config", "score"},
    {"mean_intervals", "ranking_metrics"},
    {"store"},
    {"terminal"},
    {"views"},
    {"prepare", "train", "export", "index"},
    {"estimates", "evaluate", "formats", "report", "query"},
    {"forget"},
    {"jobs"},
    {"embedmill"},
]
# Engine → modules (by prefix) that may import it.
ENGINES = {
    "pyspark": ("pipeline.prepare", "jobs"),
    "pysail": ("pipeline.prepare",),
    "ray": ("jobs",),
    "faiss": ("pipeline.index", "pipeline.formats", "pipeline.train.fold_in.loss_negatives"),
    "lancedb": ("pipeline.formats",),
    "qdrant_client": ("pipeline.formats",),
    "duckdb": ("pipeline.config.conditions", "pipeline.prepare.rules.filters", "pipeline.formats"),
    "fsspec": ("pipeline.store.storage",),
    "pydantic": ("pipeline.config", "pipeline.store", "schemas"),
    "torch": ("pipeline.train", "pipeline.score",
              "pipeline.ranking_metrics", "pipeline.export", "pipeline.index",
              "pipeline.evaluate", "pipeline.report", "pipeline.query", "pipeline.formats",
              "jobs.ray_training"),
    "typer": ("jobs.cli",),
    "rich": ("jobs.cli", "pipeline.terminal"),
    "jinja2": ("pipeline.report",),
    "markupsafe": ("pipeline.report",),
}  # fmt: skip


def modules() -> Iterator[tuple[str, Path]]:
    for package in ("schemas", "pipeline", "jobs", "embedmill"):
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
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def room(module: str) -> str:
    """The room of a module, as named in FLOORS; '' where it is nothing of ours."""
    first, *rest = module.removeprefix("embedmill.").split(".")
    if first == "pipeline":
        return rest[0] if rest else ""
    if first in ("schemas", "jobs"):
        return first
    return "embedmill" if module.startswith("embedmill") else ""


@pytest.mark.parametrize("name", ALL)
def test_engines_stay_in_their_rooms(name: str) -> None:
    for module in imports(ALL[name]):
        allowed = ENGINES.get(module.split(".")[0])
        if allowed is not None:
            assert name.startswith(allowed), f"{name} imports {module}"


@pytest.mark.parametrize("name", ALL)
def test_imports_point_down(name: str) -> None:
    own = room(name)
    for module in imports(ALL[name]):
        other = room(module)
        # `from embedmill import __version__` is for everybody: it is a constant.
        if not other or other == own or module in ("embedmill", "embedmill.__version__"):
            continue
        assert FLOOR[other] < FLOOR[own], f"{name} imports {module}"


def test_every_module_has_its_place() -> None:
    assert {room(name) for name in ALL} - {""} <= FLOOR.keys()


def test_no_vague_names() -> None:
    vague = {"utils", "common", "helpers", "manager", "core", "base", "misc"}
    assert not {name for name in ALL if set(name.split(".")) & vague}


@pytest.mark.parametrize("module", ["config", "store.storage", "store.artifact"])
def test_ground_floor_loads_no_engine(module: str) -> None:
    code = (
        f"import embedmill.pipeline.{module}, sys; "
        "print(*sorted({'pyspark', 'ray', 'torch', 'faiss', 'duckdb'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert answer.stdout.strip() == ""


def test_links_are_the_folders_of_the_package() -> None:
    for folder in ("pipeline", "jobs", "schemas"):
        assert os.readlink(ROOT / "embedmill" / folder) == f"../{folder}"


def test_jobs_and_stages_share_their_names() -> None:
    from embedmill.schemas.stages import STAGES

    files = {path.stem for path in (ROOT / "jobs").glob("*.py")}
    others = {
        "all",
        "backfill",
        "cluster",
        "launch",
        "launchers",
        "log_profile",
        "ray_leftovers",
        "ray_mailbox",
        "ray_tasks",
        "ray_training",
        "run_record",
        "tune_config",
        "__init__",
    }
    assert files == {*STAGES, *others}
    for stage, contract in STAGES.items():
        left = list(STAGES)[: list(STAGES).index(stage)]
        assert set(contract.inputs) <= set(left), f"{stage} reads to its right"
