"""Links in a run's folder: nothing outside of it is written or removed, whatever they lead to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from embedmill.jobs.launch import Job, discard_from, run_stage
from embedmill.pipeline.errors import ArtifactError
from embedmill.pipeline.store.lease import drive
from embedmill.pipeline.store.run import Run, save_config
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.terminal import Terminal
from embedmill.schemas.stages import STAGES
from tests.support.lease_owner import USERS, events_of
from tests.support.runs import clusters, finished
from tests.support.worlds import config


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_rebuild_removes_nothing_behind_a_link(tmp_path: Path) -> None:
    run = finished(clusters(), tmp_path / "runs")
    outside = tmp_path / "outside"
    for stage in reversed(STAGES):
        folder = Path(run.storage.root) / stage
        if not folder.exists():
            continue
        folder.rename(outside)
        folder.symlink_to(outside)
        before = contents(outside)
        job = Job(stage, lambda _run, _out, _progress: None, lambda _run: {"a source": "changed"})
        for work in (
            lambda one=stage: discard_from(run, one),
            lambda one=job: run_stage(run, one, Terminal(quiet=True), rebuild=True),
            lambda one=stage: run.storage.at(one).at("scratch").clear(),
            lambda one=stage: run.storage.at(one).write("spec.json", b"x"),
            lambda one=stage: run.storage.at(one).create("new.json", b"x"),
        ):
            with pytest.raises(ArtifactError, match="a link leads out of the run"):
                work()
        assert contents(outside) == before
        folder.unlink()
        outside.rename(folder)


def test_a_rebuild_removes_nothing_behind_a_link_to_a_folder_of_files(tmp_path: Path) -> None:
    run = Run(config(tmp_path / "runs", "log.tsv"))
    events_of(run, USERS)()
    data, outside = Path(run.storage.root) / "events" / "data", tmp_path / "outside"
    data.rename(outside)
    data.symlink_to(outside)
    with pytest.raises(ArtifactError, match="a link leads out of the run"):
        run.discard("events")
    assert list(contents(outside)) == ["part-00000.parquet"]


def test_a_linked_file_is_replaced_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    run = Run(config(tmp_path / "runs", "log.tsv"))
    outside = tmp_path / "theirs"
    outside.write_text("theirs")
    folder = Path(run.storage.root)
    folder.mkdir(parents=True)
    for name in ("config.json", "lease"):
        (folder / name).symlink_to(outside)
    save_config(run)
    assert not (folder / "config.json").is_symlink()
    with pytest.raises(Exception, match=r"a link leads out|a file stands"), drive(run.storage):
        pass
    run.storage.remove("lease")
    assert (outside.read_text(), os.path.lexists(folder / "lease")) == ("theirs", False)


def test_links_within_a_run_and_to_a_run_are_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "tiny").symlink_to(tmp_path / "disk")
    run = Run(config(tmp_path / "runs", "log.tsv"))
    events_of(run, USERS)()
    (tmp_path / "disk" / "elsewhere").mkdir()
    (tmp_path / "disk" / "vocab").symlink_to("elsewhere")
    run.storage.at("vocab").write("x", b"x")
    assert (tmp_path / "disk" / "elsewhere" / "x").exists()
    run.discard("events")
    assert list(contents(tmp_path / "disk" / "events")) == []


def test_any_other_folder_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "cache").symlink_to(tmp_path / "disk")
    Storage(str(tmp_path / "cache")).write("note.json", b"x")
    assert (tmp_path / "disk" / "note.json").exists()
