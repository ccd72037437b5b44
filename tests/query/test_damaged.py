"""A flipped bit in the header of a Parquet page: the right answer or exit 4, nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.commands import Cli
from tests.support.runs import clusters, finished

HEADER = 24  # bytes of a page's header, about


def page_headers(path: Path) -> Iterator[int]:
    """Where pages of a file begin: the first of each column, and its dictionary's."""
    metadata = pq.ParquetFile(path).metadata
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            column = metadata.row_group(group).column(number)
            yield from {column.data_page_offset, column.dictionary_page_offset} - {None}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    titles = [f"Film {i}" for i in range(30)]
    root = tmp_path_factory.mktemp("runs")
    finished(dataclasses.replace(clusters(), titles=titles), root)
    return root / "tiny"


def flips(path: Path, stride: int) -> Iterator[int]:
    """Bits of the headers of all pages of a file."""
    for start in sorted(page_headers(path)):
        yield from range(8 * start, 8 * (start + HEADER), stride)


def sweep(run: Path, embedmill: Cli, output: Path, stride: int) -> int:
    """Ask with one bit flipped after the other; returns the number of questions."""
    words = {
        "recommend": ["recommend", str(run), "--user", "u3", "--json"],
        "neighbors": ["neighbors", str(run), "--item", "i4", "--json"],
        "export": ["export", str(run), "--format", "npy", "--output", str(output), "--overwrite"],
    }
    right = {name: embedmill([*call]) for name, call in words.items()}
    assert {code for code, _, _ in right.values()} == {0}
    vectors = {p.name: p.read_bytes() for p in output.glob("*.npy")}
    asked, wrong = 0, list[str]()
    for path in sorted(run.rglob("*.parquet")):
        whole = path.read_bytes()
        for bit in flips(path, stride):
            data = bytearray(whole)
            data[bit // 8] ^= 1 << bit % 8
            path.write_bytes(data)
            name = list(words)[asked % len(words)]
            code, out, err = embedmill(words[name])
            asked += 1
            same = (code, out) == right[name][:2] if code == 0 else code == 4
            if name == "export" and code == 0:
                same &= vectors == {p.name: p.read_bytes() for p in output.glob("*.npy")}
            if not same or "Traceback" in err:
                wrong.append(f"{path.relative_to(run)} bit {bit} {name}: {code} {out} {err[-200:]}")
        path.write_bytes(whole)
    assert not wrong, "\n".join(wrong)
    return asked


def test_flipped_bits_of_headers(run: Path, embedmill: Cli, tmp_path: Path) -> None:
    assert sweep(run, embedmill, tmp_path / "out", 251) > 25


@pytest.mark.exhaustive
def test_every_flipped_bit_of_headers(run: Path, embedmill: Cli, tmp_path: Path) -> None:
    assert sweep(run, embedmill, tmp_path / "out", 1) > 1000
