"""What may be removed below a root, and that an interrupted removal is finished."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from embedmill.pipeline.config import parse
from embedmill.pipeline.errors import CorruptArtifactError
from embedmill.pipeline.store.artifact_writer import Writer
from embedmill.pipeline.store.retention import PINNED, REMOVED, plan_removal, remove
from embedmill.pipeline.store.storage import Storage
from embedmill.schemas.run import CONFIG, PUBLISHED, Published, publication
from embedmill.schemas.vocab import BASE, BaseRun
from tests.support.commands import Cli
from tests.support.worlds import config_tree, laid


def stored(root: Path, name: str, *, base: str = "", finished: bool = True) -> Path:
    folder = Storage(str(root / name))
    folder.write(CONFIG, b"{}")
    folder.write("train/checkpoints/latest.json", b"12345")
    folder.write("train/manifest.json", b"{}")
    if base:
        folder.write(f"vocab/{BASE.path}", BASE.encode(BaseRun(continues=f"{root}/{base}")))
    if finished:
        Writer("report", folder.at("report"), "", {}, [], {}).commit({})
        manifest = root / name / "report" / "manifest.json"
        tree = json.loads(manifest.read_text())
        tree["created"] = f"2026-11-{10 + int(name[-1]):02d}T03:00:00+00:00"
        manifest.write_text(json.dumps(tree))
    return root / name


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(6):
        stored(tmp_path, f"n{number}", base=f"n{number - 1}" if number else "")
    stored(tmp_path, "started7", base="n3", finished=False)
    pointer = Published(run="n4", content="", stages={}, published="2026-11-14T04:00:00+00:00")
    (tmp_path / PUBLISHED.path).write_bytes(PUBLISHED.encode(pointer))
    (tmp_path / "notes").mkdir()
    return tmp_path


def test_only_what_nothing_needs_is_removed(root: Path, embedmill: Cli) -> None:
    (root / "n1" / PINNED).touch()
    kept = {run.name: run.kept for run in plan_removal(str(root), keep=1)}
    assert kept == {
        "n5": "one of the newest 1", "n4": "published", "n3": "continued by started7", "n2": "",
        "n1": "pinned", "n0": "continued by n1", "started7": "not finished",
    }  # fmt: skip
    code, out, _ = embedmill(["gc", root, "--keep", "1"])
    assert code == 0
    assert "n2" in out
    assert "nothing was removed" in out
    assert (root / "n2" / CONFIG).exists()
    code, out, _ = embedmill(["gc", root, "--keep", "1", "--delete", "--json"])
    assert code == 0
    assert json.loads(out)["removed_bytes"] > 0
    assert not (root / "n2").exists()
    assert (root / "notes").exists()
    assert not (root / "n5" / "train" / "checkpoints").exists()
    assert (root / "started7" / "train" / "checkpoints").exists()


def test_age_keeps_too_and_a_removal_is_finished(root: Path) -> None:
    now = datetime(2026, 11, 16, tzinfo=UTC)
    young = plan_removal(str(root), keep=1, older_than=4, now=now)
    assert {run.name for run in young if run.kept == "young"} == {"n3", "n2"}
    # As a kill leaves it: marked, and half removed.
    (root / "n5" / REMOVED).touch()
    (root / "n5" / CONFIG).unlink()
    again = plan_removal(str(root), keep=6)
    assert [run.name for run in again if not run.kept] == ["n5"]
    remove(again)
    assert not (root / "n5").exists()
    (root / PUBLISHED.path).write_bytes(b"{")
    with pytest.raises(CorruptArtifactError):
        plan_removal(str(root), keep=1)


def test_rollbacks_deltas_and_unfinished_runs_keep_what_they_need(root: Path) -> None:
    for number, name in enumerate(("n1", "n2", "n4"), 1):
        entry = Published(run=name, content="", stages={}, published="", number=number)
        Storage(str(root)).write(publication(number).path, publication(number).encode(entry))
    (root / PUBLISHED.path).write_bytes(PUBLISHED.encode(entry))
    Writer("export", Storage(str(root / "n0")).at("export"), "", {}, [], {}).commit(
        {"users_in": 0, "users": 0, "items_in": 0, "items": 0}
    )
    content = json.loads((root / "n0/export/manifest.json").read_text())["content"]
    delta = {"base": content, "number": 1, "previous": content, "hash": ""}
    Storage(str(root / "deltas" / "1")).write("manifest.json", json.dumps(delta).encode())
    for name in ("n1", "n4", "n5", "started7"):  # nothing is continued in this world
        (root / name / "vocab" / BASE.path).unlink(missing_ok=True)
    tree = laid(config_tree(root, "log.tsv", "started7"), train={"start": "n3"})
    (root / "started7" / CONFIG).write_text(parse(tree).model_dump_json())
    rolled = "a rollback returns to it"
    for rollbacks, wanted in enumerate((("", ""), ("continued by n2", rolled), (rolled, rolled))):
        plan = plan_removal(str(root), keep=1, rollbacks=rollbacks)
        kept = {run.name: run.kept for run in plan}
        assert (kept["n1"], kept["n2"]) == wanted
        assert kept["n0"] == "the base of deltas"
        assert kept["n3"] == "continued by started7"
