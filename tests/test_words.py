"""Names are made of the field's words: CONTRIBUTING has the glossary, this test the others."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Words that a module or a public name may not have, and what to call the thing instead.
FORBIDDEN = {
    "aim": "target",
    "answering": "query",
    "asking": "query",
    "barred": "excluded",
    "bundle": "read task",
    "carrying": "carry over",
    "chunk": "line batch",
    "choice": "selection",
    "crowd": "user limit",
    "crowds": "user limits",
    "drawn": "sample",
    "elsewhere": "not in the fingerprint",
    "exhausted": "out of memory",
    "fates": "outcomes",
    "forecast": "estimate",
    "glance": "profile",
    "held": "memory, spill buffer or holdout",
    "hunt": "selector",
    "inspecting": "inspect",
    "knob": "search parameter",
    "living": "incremental",
    "lloyd": "k-means",
    "pace": "backpressure",
    "promise": "target",
    "revive": "load",
    "settle": "merge",
    "slowness": "machine slowdown",
    "spread": "sharded, repartition or distribution",
    "tallies": "histograms",
    "told": "batch report",
    "votes": "sample weights",
}
WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")


def words(name: str) -> set[str]:
    """'SpillBuffer' and 'spill_buffer' are made of 'spill' and 'buffer'."""
    return {word.lower() for word in WORD.findall(name)}


def public_names(tree: ast.Module) -> Iterator[str]:
    """Classes, functions, methods and constants that do not begin with an underscore."""
    bodies = [tree.body, *(node.body for node in tree.body if isinstance(node, ast.ClassDef))]
    for body in bodies:
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                yield node.name
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                yield node.target.id
            elif isinstance(node, ast.Assign):
                yield from (t.id for t in node.targets if isinstance(t, ast.Name))


def modules() -> list[Path]:
    return sorted(
        path
        for package in ("embedmill", "pipeline", "jobs", "schemas")
        for path in (ROOT / package).rglob("*.py")
    )


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_names_are_of_the_fields_words(path: Path) -> None:
    names = {path.stem, path.parent.name, *public_names(ast.parse(path.read_text("utf-8")))}
    found = {
        f"{name}: say {FORBIDDEN[word]}"
        for name in names
        if not name.startswith("_")
        for word in words(name) & FORBIDDEN.keys()
    }
    assert not found


def test_a_file_stem_stands_for_one_thing() -> None:
    """Stages have a module in every package; other stems come once, or mean the same."""
    from embedmill.schemas.stages import STAGES

    shared = {"__init__", "stage", "run", "items", "rejects", "profile", "backfill", *STAGES}
    stems: dict[str, list[str]] = {}
    for path in modules():
        stems.setdefault(path.stem, []).append(path.relative_to(ROOT).as_posix())
    assert not {s: paths for s, paths in stems.items() if len(paths) > 1 and s not in shared}
