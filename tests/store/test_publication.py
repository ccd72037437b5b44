"""Which run is published: the order of runs, publishing at once, rollback, deleted runs."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedmill.pipeline.errors import CorruptArtifactError, MissingArtifactError
from embedmill.pipeline.prepare.vocabulary import base_vocabulary
from embedmill.pipeline.store import publication
from embedmill.pipeline.store.publication import (
    date_of,
    is_earlier,
    is_published,
    publish,
    rollback,
    why_older,
)
from embedmill.pipeline.store.run import Run, find_run, published, save_config
from embedmill.pipeline.store.run_state import read_state, write_state
from embedmill.schemas.run import STATE, Published
from embedmill.schemas.stages import STAGES
from embedmill.schemas.vocab import BASE, SPEC, BaseRun, IdColumns, SideRows, VocabSpec
from tests.support.artifacts import counted, vocabulary, write_events
from tests.support.worlds import config

Build = Callable[..., Run]


@pytest.fixture(autouse=True)
def two_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole run has events and a vocabulary here."""
    few = {name: STAGES[name] for name in ("events", "vocab")}
    monkeypatch.setattr(publication, "STAGES", few)


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Makes a finished run: its name, its date, and the name of the run it continues."""

    def made(name: str, ds: str = "", base: str = "", **vocab: Any) -> Run:
        sections: dict[str, Any] = {"vars": {"ds": ds}} if ds else {}
        sections["vocab"] = {"previous": "published", **vocab}
        tree = config(tmp_path, "log.tsv", run={"name": name}, **sections)
        run = Run(tree)
        save_config(run)
        write_events(run, 2)
        out = run.writer("vocab")
        rows = vocabulary(["a"], [2])
        for side in ("users", "items"):
            out.write_table(f"{side}/part-00000.parquet", rows)
        if base:
            out.write_json(BASE, BaseRun(continues=f"{tmp_path}/{base}"))
        side = SideRows(total=1, shared_from=1, shared=0)
        columns = IdColumns(user=tree.events.user, item=tree.events.item)
        out.write_json(SPEC, VocabSpec(columns=columns, seed=0, users=side, items=side))
        totals = {"events_in": 2, "events_kept": 2, "events_dropped": 0, **counted(rows, rows)}
        out.commit(totals)
        return run

    return made


def name_of(root: Path) -> str:
    pointer = published(str(root))
    return pointer.run if pointer else ""


@pytest.mark.parametrize(
    ("ours", "theirs", "is_older"),
    [
        ("2026-11-21", "2026-11-22", True),
        ("2026-11-22", "2026-11-22", False),
        ("2026-11-22", "2026-11-21", False),
        ("2026-11-22T05:00", "2026-11-22T06:00", True),
        ("2026-11-22T05:00+00:00", "2026-11-22T04:30-01:00", True),
        ("2026-11-22", "2026-11-22T01", True),
        ("20261121", "2026-11-22", True),
        ("", "2026-11-22", False),
        ("2026-11-21", "", False),
        ("tuesday", "2026-11-22", False),
    ],
)
def test_the_order_of_dates(ours: str, theirs: str, is_older: bool) -> None:
    def entry(name: str, date: str) -> Published:
        return Published(run=name, content="", stages={}, published="", date=date)

    assert is_earlier(ours, theirs) == is_older
    assert bool(why_older(entry("a", ours), entry("b", theirs), "nowhere")) == is_older
    assert not why_older(entry("a", ours), entry("a", theirs), "nowhere")


def test_the_date_of_a_run(tmp_path: Path) -> None:
    events = {"date_to": "2026-11-20"}
    assert date_of(config(tmp_path, "log.tsv")) == ""
    assert date_of(config(tmp_path, "log.tsv", events=events)) == "2026-11-20"
    one = config(tmp_path, "log.tsv", vars={"ds": "2026-11-21"}, events=events)
    assert date_of(one) == "2026-11-21"
    assert date_of(config(tmp_path, "log.tsv", vars={"ds": "de"}, events=events)) == "2026-11-20"


def test_an_older_run_does_not_take_the_place_of_a_newer_one(build: Build, tmp_path: Path) -> None:
    older, newer = build("a", "2026-11-21"), build("b", "2026-11-22")
    assert publish(newer).refused == ""
    done = publish(older)
    assert done.refused == "'b' is for 2026-11-22, this run for 2026-11-21"
    assert (done.pointer.run, name_of(tmp_path)) == ("b", "b")
    assert publish(older, force=True).refused == ""
    assert name_of(tmp_path) == "a"


def test_without_dates_the_chain_of_vocabularies_is_the_order(build: Build, tmp_path: Path) -> None:
    monday, tuesday = build("monday"), build("tuesday", base="monday")
    wednesday, other = build("wednesday", base="tuesday"), build("other")
    publish(wednesday)
    for run in (monday, tuesday):
        assert publish(run).refused == "'wednesday' continues the vocabulary of this run"
    publish(tuesday, force=True)
    assert publish(wednesday).refused == ""
    assert publish(other).refused == ""  # neither continues the other: the last one counts
    assert publish(wednesday).refused == ""
    assert name_of(tmp_path) == "wednesday"


def _publish_at_once(run: Run, ready: Any) -> None:
    publication.STAGES = {name: STAGES[name] for name in ("events", "vocab")}
    ready.wait()
    publish(run)


def test_of_two_that_publish_at_once_the_newer_one_stays(build: Build, tmp_path: Path) -> None:
    runs = [build(f"run-{day}", f"2026-11-{day}") for day in (20, 21)]
    context = multiprocessing.get_context("fork")
    for _ in range(20):
        (tmp_path / "published.json").unlink(missing_ok=True)
        shutil.rmtree(tmp_path / "_published", ignore_errors=True)
        ready = context.Barrier(2)
        both = [context.Process(target=_publish_at_once, args=(run, ready)) for run in runs]
        for process in both:
            process.start()
        for process in both:
            process.join(30)
        assert [process.exitcode for process in both] == [0, 0]
        assert name_of(tmp_path) == "run-21"
        last = sorted((tmp_path / "_published").iterdir())[-1]
        assert last.read_bytes() == (tmp_path / "published.json").read_bytes()


def test_a_publisher_that_was_killed_before_the_pointer_is_caught_up(
    build: Build, tmp_path: Path
) -> None:
    first, second = build("a", "2026-11-20"), build("b", "2026-11-21")
    publish(first)
    before = (tmp_path / "published.json").read_bytes()
    publish(second)
    (tmp_path / "published.json").write_bytes(before)
    assert publish(first).refused  # it is older, but sees the later publication
    assert name_of(tmp_path) == "b"
    (tmp_path / "published.json").write_text("{")
    publish(second)
    assert (name_of(tmp_path), len(list((tmp_path / "_published").iterdir()))) == ("b", 2)


@pytest.mark.parametrize(
    "clock",
    [
        "2026-11-21T00:00:00+00:00",  # long before tuesday was built
        "the same second",
        "9999-01-01T00:00:00+00:00",  # the clock went back since; tuesday comes after it
    ],
)
def test_a_run_that_was_not_published_is_not_taken_for_published(
    clock: str, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monday, tuesday = build("monday"), build("tuesday", base="monday")
    now = tuesday.artifact("vocab").manifest.created if clock == "the same second" else clock
    monkeypatch.setattr(publication, "_now", lambda: now)
    publish(monday)
    assert (is_published(monday), is_published(tuesday)) == (True, False)


def test_what_was_published_after_a_run_stays(build: Build, tmp_path: Path) -> None:
    """The command of a run that has nothing to build does not publish it again."""
    monday, tuesday = build("monday"), build("tuesday", base="monday")
    for run in (monday, tuesday):
        publish(run)
        assert is_published(run)
    assert is_published(monday)
    rollback(str(tmp_path))
    assert (name_of(tmp_path), is_published(tuesday)) == ("monday", True)
    publish(tuesday)
    publish(monday, force=True)
    assert (name_of(tmp_path), is_published(tuesday)) == ("monday", True)


def test_rollback_goes_back_and_further_back(build: Build, tmp_path: Path) -> None:
    for day in (20, 21, 22):
        publish(build(f"run-{day}", f"2026-11-{day}"))
    assert rollback(str(tmp_path)).run == "run-21"
    assert rollback(str(tmp_path)).run == "run-20"
    with pytest.raises(MissingArtifactError, match="no run that was published before 'run-20'"):
        rollback(str(tmp_path))
    publish(build("run-23", "2026-11-23"))
    assert [one.run for one in publication.publications(str(tmp_path))] == ["run-23", "run-20"]
    publish(build("run-24", "2026-11-24"))
    shutil.rmtree(tmp_path / "run-23")
    assert rollback(str(tmp_path)).run == "run-20"  # what was deleted is passed over
    with pytest.raises(MissingArtifactError, match="nothing is published"):
        rollback(str(tmp_path / "empty"))


def test_a_pointer_of_an_older_version_is_kept_for_rollback(build: Build, tmp_path: Path) -> None:
    old, new = build("old"), build("new", base="old")
    publish(old)
    pointer = json.loads((tmp_path / "published.json").read_text())
    del pointer["number"]
    (tmp_path / "published.json").write_text(json.dumps(pointer))
    shutil.rmtree(tmp_path / "_published")
    publish(new)
    assert rollback(str(tmp_path)).run == "old"
    (tmp_path / "published.json").write_text("{")
    shutil.rmtree(tmp_path / "_published")
    with pytest.raises(CorruptArtifactError):
        list(publication.publications(str(tmp_path)))


def test_a_deleted_published_run_does_not_stop_later_nights(build: Build, tmp_path: Path) -> None:
    for day in (20, 21, 22):
        publish(build(f"run-{day}", f"2026-11-{day}"))
    shutil.rmtree(tmp_path / "run-22")
    tonight = {"run": {"name": "run-23"}, "vars": {"ds": "2026-11-23"}}

    def base(**vocab: str) -> str:
        tree = config(tmp_path, "log.tsv", vocab={"previous": "published", **vocab}, **tonight)
        found = base_vocabulary.find_base_vocabulary(Run(tree))
        return "" if found is None else found.storage.root.split("/")[-2]

    assert base() == "run-21"
    assert base(previous_gone="new") == ""
    with pytest.raises(MissingArtifactError, match="run 'run-22' was deleted"):
        base(previous_gone="stop")
    with pytest.raises(MissingArtifactError, match="embedmill rollback"):
        find_run(str(tmp_path))
    for day in (20, 21):
        shutil.rmtree(tmp_path / f"run-{day}")
    with pytest.raises(MissingArtifactError, match=r"no run that was published before it is left"):
        base()


def test_an_older_date_continues_the_run_before_it(build: Build, tmp_path: Path) -> None:
    for day in (20, 22, 24):
        publish(build(f"run-{day}", f"2026-11-{day}", base=f"run-{day - 2}" if day > 20 else ""))

    def base(day: int) -> str:
        tree = config(
            tmp_path, "log.tsv", vocab={"previous": "published"}, run={"name": f"run-{day}"},
            vars={"ds": f"2026-11-{day}"},
        )  # fmt: skip
        found = base_vocabulary.find_base_vocabulary(Run(tree))
        return "" if found is None else found.storage.root.split("/")[-2]

    assert {day: base(day) for day in (25, 24, 23, 22, 21, 20, 19)} == {
        25: "run-24", 24: "run-22", 23: "run-22", 22: "run-20", 21: "run-20",
        20: "",  # it began the vocabulary
        19: "run-24",  # nothing was published before it: the rows stay those of what is
    }  # fmt: skip


def test_the_state_of_a_driver(build: Build) -> None:
    run = build("a")
    assert read_state(run) is None
    state = write_state(run, "running", "vocab")
    assert read_state(run) == state
    gone = multiprocessing.get_context("fork").Process(target=lambda: None)
    gone.start()
    gone.join()
    dead = state.model_copy(update={"pid": gone.pid})
    run.storage.write(STATE.path, STATE.encode(dead))
    found = read_state(run)
    assert found is not None
    assert found.state == "killed"
    away = dead.model_copy(update={"machine": "another"})
    run.storage.write(STATE.path, STATE.encode(away))
    assert read_state(run) == away
    run.storage.write(STATE.path, b"{")
    assert read_state(run) is None
