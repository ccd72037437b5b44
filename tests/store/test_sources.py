"""Raw files by path, folder and glob; links, markers, tables."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.store.sources import find_sources, open_source, stamps

FILES = (
    "b.tsv", "a.tsv", "c.txt", "_SUCCESS", ".hidden", "sub/d.tsv", "_tmp/e.tsv", "._SUCCESS.crc",
    "sub/.d.tsv.crc", "f.parquet.crc", "_committed_12", "_temporary/0/x.tsv", "sub_$folder$",
    "_day=1/g.tsv",
)  # fmt: skip


@pytest.fixture(params=["disk", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty folder."""
    if request.param == "disk":
        return str(tmp_path)
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    return "memory://top/log"


def put(root: str, *names: str) -> None:
    """Files that hold their own names."""
    for name in names:
        if root.startswith("memory://"):
            MemoryFileSystem().pipe_file(f"{root}/{name}", name.encode())
        else:
            path = Path(root, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)


def names(root: str, pattern: str = "") -> list[str]:
    """The files found, relative to the root."""
    found = find_sources(f"{root}/{pattern}".rstrip("/"))
    for source in found:
        with open_source(source.url) as raw:
            assert len(raw.read()) == source.bytes
    above = root.removeprefix("memory://")
    return [source.url.partition(f"{above}/")[2] for source in found]


def test_sources_by_file_folder_and_glob(root: str) -> None:
    put(root, *FILES)
    everything = ["_day=1/g.tsv", "a.tsv", "b.tsv", "c.txt", "sub/d.tsv"]
    assert names(root) == everything
    assert names(root, "*") == everything
    assert names(root, "**") == everything
    assert names(root, "*.tsv") == ["a.tsv", "b.tsv"]
    assert names(root, "**/*.tsv") == ["_day=1/g.tsv", "a.tsv", "b.tsv", "sub/d.tsv"]
    assert names(root, "s*") == ["sub/d.tsv"]
    assert names(root, "*/*") == ["_day=1/g.tsv", "sub/d.tsv"]
    assert names(root, "{a,c}.t*") == ["a.tsv", "c.txt"]
    assert names(root, "{a.tsv,sub,{b,x}.tsv}") == ["a.tsv", "b.tsv", "sub/d.tsv"]
    assert names(root, "[!a].tsv") == ["b.tsv"]
    assert names(root, "c.txt") == ["c.txt"]
    # What a pattern spells is read, hidden or not.
    assert names(root, "_tmp") == ["_tmp/e.tsv"]
    assert names(root, "_t*/*.tsv") == ["_tmp/e.tsv"]
    assert names(root, "_SUCCESS") == ["_SUCCESS"]


@pytest.mark.parametrize(
    "name", ["a[1].csv", "a::b.csv", "a#b.csv", "a b.csv", "a{1,2}.csv", "a*.csv", "ü%20?.csv"]
)
def test_names_of_any_characters(root: str, name: str) -> None:
    if root.startswith("memory://") and "::" in name:
        pytest.skip("fsspec takes it for two URLs in memory")
    put(root, name, "other.csv", f"in {name}/c.csv")
    assert names(root, name) == [name]
    assert names(root, f"in {name}/*.csv") == [f"in {name}/c.csv"]
    assert len(names(root, "*")) == 3


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("absent.tsv", "no such file"),
        ("*.absent", "no file is named like this"),
        ("absent/*", "no file is named like this"),
        ("{x,y}", "no file is named like this"),
    ],
)
def test_no_source(root: str, pattern: str, said: str) -> None:
    put(root, "a.tsv")
    with pytest.raises(InputError, match=said):
        find_sources(f"{root}/{pattern}")


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no files in this folder"):
        find_sources(str(tmp_path))


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    root = str(tmp_path / "log")
    put(root, "2026-09/a.csv", "../archive/2026-10/b.csv", "../archive/2026-10/deep/c.csv")
    Path(root, "2026-10").symlink_to("../archive/2026-10")
    found = ["2026-09/a.csv", "2026-10/b.csv", "2026-10/deep/c.csv"]
    assert names(root) == found
    assert names(root, "2026-*") == found
    assert names(root, "*/*.csv") == found[:2]
    assert names(root, "**/*.csv") == found
    assert names(root, "2026-10") == found[1:]


def test_a_file_of_two_names_is_read_once(tmp_path: Path) -> None:
    root = str(tmp_path)
    put(root, "x/2026-10/b.csv", "x/2026-10.csv")
    Path(root, "x/latest").symlink_to("2026-10")
    Path(root, "x/current.csv").symlink_to("2026-10.csv")
    assert names(root, "x") == ["x/2026-10.csv", "x/2026-10/b.csv"]
    assert names(root, "x/*/*") == ["x/2026-10/b.csv"]


@pytest.mark.parametrize("target", [".", "..", "../log", "../other"])
def test_a_loop_of_links_is_refused(tmp_path: Path, target: str) -> None:
    root = str(tmp_path / "log")
    put(root, "a.csv", "../other/b.csv")
    Path(tmp_path, "other/back").symlink_to("../log")
    Path(root, "loop").symlink_to(target)
    for pattern in ("", "/*", "/**/*.csv"):
        with pytest.raises(InputError, match="a link leads to a folder that holds it"):
            find_sources(root + pattern)


def test_a_link_to_nothing_is_refused(tmp_path: Path) -> None:
    put(str(tmp_path), "a.csv")
    (tmp_path / "gone.csv").symlink_to("nowhere.csv")
    for pattern in ("", "/*.csv"):
        with pytest.raises(InputError, match="a link leads to nothing"):
            find_sources(f"{tmp_path}{pattern}")


TABLES = {
    "Delta": ("t/_delta_log/000.json", "t/part-0.parquet", "t/day=1/part-1.parquet"),
    "Hudi": ("t/.hoodie/hoodie.properties", "t/part-0.parquet", "t/day=1/part-1.parquet"),
    "Iceberg": ("t/metadata/v1.metadata.json", "t/data/part-0.parquet", "t/data/day=1/1.parquet"),
}


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("above", ["", "lake/"])
def test_folders_of_tables_are_refused(root: str, kind: str, above: str) -> None:
    put(root, "plain/a.parquet", *(above + name for name in TABLES[kind]))
    file = above + TABLES[kind][1]
    folder = file.rpartition("/")[0]
    patterns = ["", "*", "**/*.parquet", f"{above}t", f"{above}*", file, folder, f"{folder}/*"]
    for pattern in [*patterns, f"{folder}/day=*", f"{folder}/day=1", f"{above}t*/**"]:
        with pytest.raises(InputError, match=f"is the folder of an? {kind} table"):
            find_sources(f"{root}/{pattern}".rstrip("/"))
    assert names(root, "plain") == ["plain/a.parquet"]


def test_data_beside_metadata_of_items_is_no_table(root: str) -> None:
    put(root, "data/log.csv", "metadata/items.csv", "metadata.csv")
    assert names(root, "data") == ["data/log.csv"]
    assert len(names(root)) == 3


def test_stamps_follow_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("one")
    before = stamps(find_sources(str(path)))
    os.utime(path, (1, 1))
    assert stamps(find_sources(str(path))) == before
    path.write_text("two")
    assert stamps(find_sources(str(path))) != before
