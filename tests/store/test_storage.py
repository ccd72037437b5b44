from __future__ import annotations

import hashlib
import os
import threading
import uuid
from pathlib import Path

import pytest

from embedmill.pipeline.errors import ConfigError, MachineError
from embedmill.pipeline.store.storage import ExistsError, Storage


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    local = request.param == "local"
    return Storage(str(tmp_path / "root") if local else f"memory://{uuid.uuid4().hex}")


def test_write_read_replace_remove(storage: Storage) -> None:
    assert not storage.exists("a/b.bin")
    out = storage.write("a/b.bin", b"one")
    assert (out.bytes, out.sha256) == (3, hashlib.sha256(b"one").hexdigest())
    storage.write("a/b.bin", b"two")
    assert storage.read("a/b.bin") == b"two"
    with storage.open("a/b.bin") as raw:
        raw.seek(1)
        assert raw.read() == b"wo"
    storage.remove("a/b.bin")
    storage.remove("a/b.bin")
    with pytest.raises(FileNotFoundError):
        storage.read("a/b.bin")


def test_a_folder_is_cleared_with_all_in_it_and_nothing_else(storage: Storage) -> None:
    storage.write("scratch/deep/a.bin", b"one")
    storage.write("scratches/b.bin", b"two")
    storage.at("scratch").clear()
    storage.at("scratch").clear()
    assert not storage.exists("scratch/deep/a.bin")
    assert storage.read("scratches/b.bin") == b"two"


def test_a_writer_that_fails_leaves_nothing(storage: Storage) -> None:
    def half() -> None:
        with storage.writer("x.bin") as out:
            out.write(b"half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        half()
    assert not storage.exists("x.bin")
    if storage.is_local:
        assert os.listdir(storage.root) == []


def test_create_has_one_winner(storage: Storage) -> None:
    won, ready = [], threading.Barrier(8)

    def race(number: int) -> None:
        ready.wait()
        try:
            storage.create("once.json", b"%d" % number * 1000)
            won.append(number)
        except ExistsError:
            pass

    for attempt in range(5):
        won.clear()
        storage.remove("once.json")
        threads = [threading.Thread(target=race, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1, attempt
        assert storage.read("once.json") == b"%d" % won[0] * 1000


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "a\\b", "a\0b"])
def test_no_path_leaves_the_root(storage: Storage, path: str) -> None:
    with pytest.raises(ConfigError, match="leaves the folder"):
        storage.write(path, b"")


def test_local_path(tmp_path: Path) -> None:
    assert Storage(str(tmp_path)).local_path("a") == tmp_path / "a"
    with pytest.raises(MachineError, match="not on a local disk"):
        Storage("memory://x").local_path("a")


def test_an_unknown_protocol() -> None:
    with pytest.raises(ConfigError, match=r"nosuch://x/a: cannot be opened"):
        Storage("nosuch://x").read("a")


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(MachineError, match="a file stands where a folder should be"):
        Storage(str(tmp_path / "runs")).write("a", b"")
