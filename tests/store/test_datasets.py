"""Data sets in pinned wheels. A folder of wheels made here stands in for the package index."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from embedmill.pipeline.config import load
from embedmill.pipeline.errors import ConfigError, MachineError
from embedmill.pipeline.store import datasets
from embedmill.pipeline.store.cache import cache_folder
from embedmill.pipeline.store.datasets import DATASETS, Dataset, resolve

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
WHEEL = "toylogs-1.0-py3-none-any.whl"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel that pip finds, and a cache of this test."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / WHEEL, "w") as archive:
        archive.writestr("toylogs/data/log.tsv", "user\titem\n")
        archive.writestr(
            "toylogs-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: toylogs\nVersion: 1.0\n"
        )
        archive.writestr(
            "toylogs-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("toylogs-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("EMBEDMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def toy(monkeypatch: pytest.MonkeyPatch, sha256: str, package: str = "toylogs==1.0") -> None:
    files = {"log.tsv": "toylogs/data/log.tsv"}
    monkeypatch.setitem(DATASETS, "toy", Dataset(package, WHEEL, sha256, files))


def test_other_paths_stay_as_they_are() -> None:
    assert resolve("s3://bucket/log.tsv") == "s3://bucket/log.tsv"


def test_a_file_is_fetched_once(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy(monkeypatch, hashlib.sha256((index / WHEEL).read_bytes()).hexdigest())
    path = Path(resolve("dataset:toy/log.tsv"))
    assert path.read_text() == "user\titem\n"
    assert [p.name for p in path.parent.iterdir()] == ["log.tsv"]
    (index / WHEEL).unlink()
    assert Path(resolve("dataset:toy/log.tsv")) == path


def test_another_sha256_is_refused(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy(monkeypatch, "0" * 64)
    with pytest.raises(MachineError, match=r"expected 0000.*nothing was taken from it"):
        resolve("dataset:toy/log.tsv")
    assert not list((index.parent / "cache").rglob("log.tsv"))


def test_a_package_that_cannot_be_had(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy(monkeypatch, "0" * 64, "toylogs==2.0")
    with pytest.raises(MachineError, match=r"toylogs==2\.0: cannot be downloaded with pip"):
        resolve("dataset:toy/log.tsv")


def test_a_cache_that_cannot_be_written(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EMBEDMILL_CACHE", str(tmp_path / "file"))
    toy(monkeypatch, "0" * 64)
    with pytest.raises(MachineError, match="Set EMBEDMILL_CACHE"):
        resolve("dataset:toy/log.tsv")


def test_unknown_names() -> None:
    with pytest.raises(ConfigError, match="unknown data set 'x'; there are movielens-100k"):
        resolve("dataset:x/y")
    with pytest.raises(ConfigError, match=r"no file 'y'; there are ml-100k.inter"):
        resolve("dataset:movielens-100k/y")


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.toml")), ids=lambda p: p.stem)
def test_examples_name_files_that_exist(example: Path) -> None:
    config = load(example)
    assert config.run.name == example.stem
    paths = [*config.events.paths, *(config.events.items.paths if config.events.items else ())]
    public = [path for path in paths if path.startswith(datasets.PREFIX)]
    assert bool(public) == (example.stem != "shop")  # whose log is its reader's own
    for path in public:
        name, file = path.removeprefix(datasets.PREFIX).split("/")
        assert file in DATASETS[name].files


def test_a_pinned_file_in_the_cache_has_its_known_size() -> None:
    """Only where the data set was fetched before: tests do not need the network."""
    path = Path(cache_folder() / "movielens-100k" / DATASETS["movielens-100k"].sha256[:16])
    if not path.exists():
        pytest.skip("MovieLens-100K is not in the cache; `make demo` fetches it")
    assert (path / "ml-100k.inter").stat().st_size == 1_979_230
