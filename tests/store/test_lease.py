"""A run has one driver at a time, and one that was stopped and woke up commits nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from embedmill.jobs import vocab
from embedmill.pipeline.config import parse, to_toml
from embedmill.pipeline.errors import CorruptArtifactError, InUseError
from embedmill.pipeline.store import lease
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.lease import current_driver, drive
from embedmill.pipeline.store.process import is_running, started_at
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.store.storage import ExistsError, Storage
from embedmill.schemas.run import FENCE, lease_of
from tests.support.commands import Cli
from tests.support.lease_owner import ELSEWHERE, USERS, events_of, plant
from tests.support.object_store import lax
from tests.support.worlds import PlantedWorld, config, config_tree


@pytest.fixture(params=["local", "memory", "objects"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    local = request.param == "local"
    return Storage(str(tmp_path / "run") if local else f"{request.param}://{uuid.uuid4().hex}")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STALE", "WATCHED", "SETTLED"):
        monkeypatch.setattr(lease, name, 0.05)


@contextmanager
def driven_by_another_thread(storage: Storage) -> Iterator[None]:
    taken, ended = threading.Event(), threading.Event()

    def work() -> None:
        with drive(storage):
            taken.set()
            ended.wait(30)

    thread = threading.Thread(target=work)
    thread.start()
    assert taken.wait(30)
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_numbers_rise_and_an_ended_lease_is_free(storage: Storage) -> None:
    for number in (1, 2, 3):
        with drive(storage) as driver:
            assert (driver.lease.fence, driver.folder, driver.folders()) == (number, "", [""])
            assert current_driver(storage) is driver
            with drive(storage) as nested:
                assert nested is driver
            driver.fence.check()
        assert current_driver(storage) is None
    assert FENCE.decode(storage.read(FENCE.path)).fence == 3
    if storage.is_local:
        assert sorted(os.listdir(Path(storage.root) / "lease")) == ["000003.json", "fence.json"]


def test_of_many_at_once_one_drives(storage: Storage) -> None:
    ready, inside, said = threading.Barrier(8), list[int](), list[str]()

    def work() -> None:
        ready.wait()
        try:
            with drive(storage) as driver:
                inside.append(driver.lease.fence)
                time.sleep(0.2)
        except InUseError as error:
            said.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (inside, len(said)) == ([1], 7)
    assert f"in use by {os.uname().nodename} pid {os.getpid()} since 20" in said[0]


@pytest.mark.parametrize(
    ("owner", "own_folder"),
    [
        ({"pid": 1 << 22}, ""),  # no process has this id
        ({"started": "1"}, ""),  # another process had it
        ({"pid": 1 << 22, "outlived": True}, "attempt-2"),
        ({"machine": ELSEWHERE, "beat": 0.0}, "attempt-2"),
        ({"released": True}, ""),
        ({"released": True, "own_folders": True}, "attempt-2"),
    ],
)
@pytest.mark.usefixtures("impatient")
def test_an_owner_that_is_gone(storage: Storage, owner: dict[str, Any], own_folder: str) -> None:
    plant(storage, **owner)
    with drive(storage) as driver:
        assert (driver.lease.fence, driver.folder) == (2, own_folder)
    with drive(storage) as driver:
        assert bool(driver.folder) == bool(own_folder)  # the earlier one may still wake up


@pytest.mark.parametrize(
    "owner", [{}, {"machine": ELSEWHERE}, {"fence": 3}], ids=["here", "elsewhere", "ahead"]
)
def test_an_owner_that_is_there(storage: Storage, owner: dict[str, Any]) -> None:
    if owner.get("fence") == 3:  # it has died between its lease and the number that counts
        plant(storage, fence=2, released=True)
        storage.write(FENCE.path, b'{"fence": 2}')
    there = plant(storage, **owner)
    said = f"in use by node7 pid {there.pid} since 2026-11-28T10:00:00"
    with pytest.raises(InUseError, match=said.replace("+", r"\+")), drive(storage):
        pass


def test_a_late_heartbeat_shows_that_an_owner_is_there(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clock may be late."""
    plant(storage, machine=ELSEWHERE, beat=1.0)
    monkeypatch.setattr(lease.time, "sleep", lambda _: plant(storage, machine=ELSEWHERE, beat=16.0))
    with pytest.raises(InUseError), drive(storage):
        pass


def test_heartbeats_are_written(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT", 0.01)
    with drive(storage) as driver:
        file = lease_of(driver.lease.fence)
        deadline = time.monotonic() + 20
        while file.decode(storage.read(file.path)).beat == driver.lease.beat:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert file.decode(storage.read(file.path)).released


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"fence": "x"}'])
def test_a_damaged_lease_is_named(storage: Storage, damage: bytes) -> None:
    storage.write(FENCE.path, damage)
    with (
        pytest.raises(CorruptArtifactError, match=r"lease/fence\.json: is damaged"),
        drive(storage),
    ):
        pass


@pytest.mark.usefixtures("impatient")
def test_a_store_that_ignores_put_if_absent_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    probed = Storage(f"objects://{uuid.uuid4().hex}")
    with lax(), drive(probed) as driver:
        assert not driver.exclusive
    with drive(probed) as driver:
        assert not driver.exclusive  # known from the first time
    create = Storage.create

    def overwritten(storage: Storage, path: str, data: bytes) -> None:
        create(storage, path, data)
        plant(storage, fence=3, token="the rival's")

    monkeypatch.setattr(Storage, "create", overwritten)
    with lax(), pytest.raises(InUseError, match="in use by node7"), drive(probed):
        pass


def test_a_store_that_keeps_put_if_absent() -> None:
    with drive(Storage(f"objects://{uuid.uuid4().hex}")) as driver:
        assert driver.exclusive


def test_processes() -> None:
    own = started_at(os.getpid())
    assert is_running(os.getpid(), own)
    assert not is_running(os.getpid(), "1")
    child = subprocess.Popen([sys.executable, "-c", ""])
    deadline = time.monotonic() + 30
    while is_running(child.pid, ""):  # it ends, and is a zombie until `wait`
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.wait()


def test_a_second_driver_ends_with_its_own_code_and_changes_nothing(
    tmp_path: Path, embedmill: Cli
) -> None:
    log = PlantedWorld().write(tmp_path / "log.tsv")
    tree = config_tree(tmp_path / "runs", log)
    toml = tmp_path / "run.toml"
    toml.write_text(to_toml(parse(tree)))
    run = Run(parse(tree))
    run.storage.write("config.json", b"of the first")
    with driven_by_another_thread(run.storage):
        for words in (
            ["run", str(toml), "--set", "vocab.min_item_count=20"],
            ["tune", str(toml), "--minutes", "0"],
        ):
            code, _, err = embedmill(words)
            assert code == 8
            assert f"in use by {os.uname().nodename} pid {os.getpid()} since" in err
        assert vocab.main([str(toml)]) == 8
    assert run.storage.read("config.json") == b"of the first"


def commits(run: Run, users: tuple[str, str]) -> Artifact:
    with drive(run.storage):
        return events_of(run, users)()


@pytest.mark.usefixtures("impatient")
def test_a_driver_that_was_stopped_commits_nothing_when_it_wakes_up(tmp_path: Path) -> None:
    run = Run(config(tmp_path, "log.tsv"))
    command = [sys.executable, "-m", "tests.support.lease_owner", str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdin is not None
        assert owner.stdout is not None
        assert owner.stdout.readline() == "written\n"
        owner.send_signal(signal.SIGSTOP)
        time.sleep(0.2)
        done = commits(run, ("c", "d"))
        assert done.manifest.folder == "attempt-2"
        owner.send_signal(signal.SIGCONT)
        owner.stdin.write("commit\n")
        owner.stdin.flush()
        _, err = owner.communicate(timeout=60)
    assert owner.returncode == InUseError.exit_code, err
    assert f"the run was taken over by {os.uname().nodename} pid {os.getpid()}" in err
    again = run.artifact("events")
    assert list(again.verify()) == []
    assert again.read_tables("data")["user"].to_pylist() == ["c", "d"]


def test_files_of_attempts_have_names_of_their_own_and_one_content(tmp_path: Path) -> None:
    plain, taken = (Run(config(tmp_path / name, "log.tsv")) for name in ("plain", "taken"))
    plant(taken.storage, pid=1 << 22, outlived=True)
    leftover = "events/data/part-00000.parquet"
    taken.storage.write(leftover, b"a task of the earlier driver may still write here")
    contents = [commits(run, USERS).manifest.content for run in (plain, taken)]
    assert contents[0] == contents[1]
    done = taken.artifact("events")
    assert (done.manifest.format, done.manifest.folder) == (2, "attempt-2")
    assert done.url("x") == f"{taken.storage.root}/events/attempt-2/x"
    assert done.folder == f"{taken.storage.root}/events"
    assert list(done.verify()) == []
    taken.discard("events")
    assert taken.find("events") is None
    assert not taken.storage.exists(f"events/attempt-2/{leftover.removeprefix('events/')}")
    assert b'"folder"' not in plain.storage.read("events/manifest.json")


def test_one_create_wins(tmp_path: Path) -> None:
    """What leases rest on."""
    storage = Storage(str(tmp_path))
    storage.create("a", b"1")
    with pytest.raises(ExistsError):
        storage.create("a", b"2")
