"""Whatever a JSON file of a run holds, each command answers or names the file: never a trace."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedmill.pipeline.store.lease import drive
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.store.storage import Storage
from embedmill.schemas.run import PUBLISHED, Published
from tests.support.commands import Cli
from tests.support.report_world import ReportWorld, build
from tests.support.runs import clusters, finished


def _changed(value: Any, leaf: Any) -> Any:
    """The same keys, every value that is no object or list replaced."""
    if isinstance(value, dict):
        return {key: _changed(one, leaf) for key, one in value.items()}
    return [_changed(one, leaf) for one in value] if isinstance(value, list) else leaf


def _other_types(data: bytes) -> bytes:
    return json.dumps(_changed(json.loads(data), {"a": [1]})).encode()


def _huge(data: bytes) -> bytes:
    """Numbers that do not fit, where there are numbers."""
    return re.sub(rb"(?<=: )-?[0-9][0-9.e+-]*", b"1" * 5000, data)


MUTATIONS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "half": lambda data: data[: len(data) // 2],
    "bytes": lambda data: random.Random(1).randbytes(len(data)),
    "types": _other_types,
    "shape": lambda _: b'[{"run": 1}, null]',
    "object": lambda _: b'{"run": {"name": []}, "fence": -1, "stage": {}}',
    "huge": _huge,
    "infinite": lambda data: re.sub(rb"(?<=: )-?[0-9][0-9.e+-]*", b"1e999", data),
    "deep": lambda _: b"[" * 100_000,
    "null": lambda _: b"null",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an index and its pointer, and one with a page."""
    folder = tmp_path_factory.mktemp("broken")
    run = finished(clusters(), folder)
    with drive(run.storage):
        pass
    contents = {"index": run.artifact("index").manifest.content}
    pointer = Published(run="tiny", content="", stages=contents, published="2026-11-22T00:00:00")
    Storage(str(folder)).write(PUBLISHED.path, PUBLISHED.encode(pointer))
    page = build(ReportWorld().write(folder))
    page.storage.write("config.json", page.config.model_dump_json().encode())
    return folder


def commands(folder: Path, run: str, output: Path) -> list[list[str]]:
    place = f"{folder}/{run}"
    return [
        ["status", place],
        ["status", place, "--json"],
        ["metrics", place],
        ["verify", place],
        ["recommend", str(folder), "--user", "u3"],
        ["neighbors", place, "--item", "i4"],
        ["export", place, "--format", "npy", "--output", str(output), "--overwrite"],
    ]


def slower_commands(folder: Path, run: str) -> list[list[str]]:
    """Commands that start the engine, or look at all runs."""
    place = f"{folder}/{run}"
    return [
        ["diff", place, place],
        ["list", str(folder)],
        ["gc", str(folder)],
        ["publish", place],
        ["rollback", str(folder)],
        ["compare", place, place],
    ]


def small_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.json"))


def sweep(root: Path, embedmill: Cli, tmp_path: Path, stride: int) -> int:
    """Call commands with each file broken in each way; returns the number of calls."""
    calls, found = 0, list[str]()
    for at, path in enumerate(small_files(root)):
        whole = path.read_bytes()
        run = "world" if "world" in path.parts else "tiny"
        words = commands(root, run, tmp_path / "out")
        words += slower_commands(root, run) if stride == 1 else []
        step = min(stride, 4) if path.parent in (root, root / run) else stride
        for number, (kind, mutate) in enumerate(MUTATIONS.items()):
            path.write_bytes(mutate(whole))
            for call in words[(at + number) % step :: step]:
                calls += 1
                code, _, err = embedmill(call)
                if code not in (0, 3, 4) or not (not err or err.startswith("embedmill: ")):
                    found.append(f"{path.name} {kind} {call[:3]}: {code} {err[-300:]}")
        path.write_bytes(whole)
    assert not found, "\n".join(found)
    return calls


def test_broken_small_files(root: Path, embedmill: Cli, tmp_path: Path) -> None:
    calls = sweep(root, embedmill, tmp_path, 29)
    print(f"{calls} calls")
    assert calls > 50


@pytest.mark.exhaustive
def test_every_broken_small_file(root: Path, embedmill: Cli, tmp_path: Path) -> None:
    assert sweep(root, embedmill, tmp_path, 1) > 1000


@pytest.mark.parametrize("kind", MUTATIONS)
@pytest.mark.parametrize("name", ["config.json", "published.json", "index/manifest.json"])
def test_the_file_is_named_with_what_to_do(
    root: Path, embedmill: Cli, name: str, kind: str
) -> None:
    path = root / name if name == "published.json" else root / "tiny" / name
    whole = path.read_bytes()
    broken = MUTATIONS[kind](whole)
    if broken == whole:
        pytest.skip("this file has no numbers")
    path.write_bytes(broken)
    try:
        code, _, err = embedmill(["recommend", str(root), "--user", "u3"])
    finally:
        path.write_bytes(whole)
    assert code == 4
    assert err.startswith(f"embedmill: {path}: ")
    assert " again" in err


def test_verify_finds_a_manifest_without_its_last_byte(root: Path, embedmill: Cli) -> None:
    found = 0
    for path in sorted((root / "world").glob("*/manifest.json")):
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        code, out, _ = embedmill(["verify", str(root / "world")])
        path.write_bytes(whole)
        assert f"{path.parent.name}/manifest.json is cut short" in out
        assert code == 4
        found += 1
    assert found == 8


def test_a_manifest_of_another_stage_is_none(root: Path) -> None:
    run = Run(finished(clusters(), root / "other").config)
    other = run.storage.read("vocab/manifest.json")
    run.storage.write("events/manifest.json", other)
    with pytest.raises(Exception, match=r"events/manifest\.json: is damaged"):
        run.artifact("events")
