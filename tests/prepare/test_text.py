"""Delimited text, JSON lines and Parquet: one file in, records and rejects out."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.prepare.parse.mixed import MixedColumn
from embedmill.pipeline.prepare.parse.numbers import as_plain_text
from embedmill.pipeline.prepare.readers import columnar, delimited, jsonlines, text_lines
from embedmill.pipeline.prepare.readers.file_slice import FileSlice
from embedmill.pipeline.prepare.readers.layout import Layout
from embedmill.pipeline.prepare.readers.parsed_batch import ParsedBatch
from embedmill.pipeline.store.sources import find_sources

Found = tuple[dict[str, list[str]], list[int], dict[int, tuple[str, bytes]]]


def layout(**changes: object) -> Layout:
    start = {
        "format": "csv",
        "separator": ",",
        "quote": '"',
        "encoding": "utf-8",
        "header": True,
        "names": (),
        "wanted": (),
    }
    return Layout(**{**start, **changes})  # type: ignore[arg-type]


def read(path: Path, data: bytes, shape: Layout, parser: object = delimited) -> Found:
    """Columns, line numbers, and rejects by line, in order of lines."""
    path.write_bytes(data)
    columns: dict[str, list[str]] = {}
    lines: list[int] = []
    rejects: dict[int, tuple[str, bytes]] = {}
    source = find_sources(str(path))[0]
    cut = columnar.slice_file if parser is columnar else text_lines.slice_file
    first = 1
    for start, end in (pieces := cut(source, shape)):
        last = end == pieces[-1][1]
        part = FileSlice(
            0, source.url, path.name, start, end, source.bytes, first_line=first, ends_file=last
        )
        first += 0 if last else text_lines.count_lines(source.url, start, end)
        for batch in parser.read_slice(part, shape):  # type: ignore[attr-defined]
            _gather(batch, columns, lines, rejects)
    order = np.argsort(lines, kind="stable")
    sorted_columns = {n: [values[k] for k in order] for n, values in columns.items()}
    return sorted_columns, [lines[k] for k in order], rejects


def _gather(
    batch: ParsedBatch,
    columns: dict[str, list[str]],
    lines: list[int],
    rejects: dict[int, tuple[str, bytes]],
) -> None:
    for name, values in batch.columns.items():
        plain = as_plain_text(values) if isinstance(values, MixedColumn) else values
        columns.setdefault(name, []).extend(plain.to_pylist())
    lines.extend(batch.lines.tolist())
    bad = batch.rejects
    for line, reason, raw in zip(bad.lines.tolist(), bad.reasons, bad.raw.to_pylist(), strict=True):
        assert line not in rejects
        rejects[line] = (reason, raw)


def test_plain_lines(tmp_path: Path) -> None:
    columns, lines, rejects = read(tmp_path / "a", b"u,i\n1,2\n3\n4,5,6\n7,8", layout())
    assert columns == {"u": ["1", "7"], "i": ["2", "8"]}
    assert lines == [2, 5]
    assert rejects == {3: ("columns", b"3"), 4: ("columns", b"4,5,6")}


def test_crlf_and_a_byte_order_mark(tmp_path: Path) -> None:
    data = codecs.BOM_UTF8 + b"u,i\r\n1,2\r\n\r\n3,4\r\n\r\n\r\n"
    columns, lines, rejects = read(tmp_path / "a", data, layout())
    assert columns == {"u": ["1", "3"], "i": ["2", "4"]}
    assert lines == [2, 4]
    assert rejects == {3: ("columns", b"")}  # blank lines at the end are none


def test_quotes_tabs_separators_and_newlines_in_a_field(tmp_path: Path) -> None:
    data = b'u,i\n"a,b","say ""hi"""\nplain,x\n"two\nlines","tab\there"\n"",z\n'
    columns, lines, rejects = read(tmp_path / "a", data, layout())
    assert columns == {
        "u": ["a,b", "plain", "two\nlines", ""],
        "i": ['say "hi"', "x", "tab\there", "z"],
    }
    assert lines == [2, 3, 4, 6]
    assert rejects == {}


def test_an_unclosed_quote_spoils_only_its_line(tmp_path: Path) -> None:
    data = b'u,i\n1,2\n"3,4\n5,6\n7,"8"\n"9"x,1\n5" disk,2\n'
    columns, lines, rejects = read(tmp_path / "a", data, layout())
    assert columns == {"u": ["1", "5", "7", '5" disk'], "i": ["2", "6", "8", "2"]}
    assert lines == [2, 4, 5, 7]
    assert rejects == {3: ("quote", b'"3,4'), 6: ("quote", b'"9"x,1')}


def test_a_quoted_record_across_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = b'u,i\n1,2\n"a\nb\nc",d\n3,4\n"open,5\n6,7\n'
    whole = read(tmp_path / "a", data, layout())
    assert whole[0] == {"u": ["1", "a\nb\nc", "3", "6"], "i": ["2", "d", "4", "7"]}
    assert whole[2] == {7: ("quote", b'"open,5')}
    for size in range(1, 12):
        monkeypatch.setattr(text_lines, "_READ_BYTES", size)
        assert read(tmp_path / "a", data, layout()) == whole


def test_a_separator_of_two_characters_and_no_header(tmp_path: Path) -> None:
    shape = layout(separator="::", quote="", header=False, names=("u", "i"), wanted=("i",))
    columns, lines, rejects = read(tmp_path / "a", b'1::"2\n3:4\n', shape)
    assert columns == {"i": ['"2']}
    assert lines == [1]
    assert rejects == {2: ("columns", b"3:4")}


def test_latin_1_is_read_where_it_is_named_and_rejected_where_not(tmp_path: Path) -> None:
    data = "u,i\ncafé,1\nok,2\n".encode("latin-1")
    named = read(tmp_path / "a", data, layout(encoding="iso8859-1"))
    assert named[0] == {"u": ["café", "ok"], "i": ["1", "2"]}
    columns, lines, rejects = read(tmp_path / "a", data, layout())
    assert columns == {"u": ["ok"], "i": ["2"]}
    assert lines == [3]
    assert rejects == {2: ("encoding", b"caf\xe9,1")}


def test_utf_16(tmp_path: Path) -> None:
    data = "u,i\nčaj,Ċ\n".encode("utf-16")  # U+010A holds the byte of a newline
    assert read(tmp_path / "a", data, layout(encoding="utf-16"))[0] == {"u": ["čaj"], "i": ["Ċ"]}
    columns, _, rejects = read(tmp_path / "a", data + b"1,2\n\0", layout(encoding="utf-16"))
    assert columns == {"u": ["čaj"], "i": ["Ċ"]}
    assert {line: reason for line, (reason, _) in rejects.items()} == {3: "encoding"}


def test_an_undecodable_line_in_a_quoted_chunk(tmp_path: Path) -> None:
    columns, _, rejects = read(tmp_path / "a", b'u,i\n"a",1\n\xff"b",2\n"c",3\n', layout())
    assert columns == {"u": ["a", "c"], "i": ["1", "3"]}
    assert rejects == {3: ("encoding", b'\xff"b",2')}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"u;i\n1;2\n", r"has no column 'u'; it has 'u;i'\. Is the separator ','\?"),
        (b"a,b\n1,2\n", "has no column 'u'; it has 'a', 'b'. Check the column names"),
        (b"u,i,u\n1,2,3\n", "has 2 columns 'u'"),
        ("u,i\n1,2\n".encode("utf-16-le"), "no text in utf-8. Check events.format and events.e"),
        (b"PAR1\0\1\n", "its first line is no text in utf-8"),
    ],
)
def test_a_header_without_the_columns(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path / "a", data, layout(wanted=("u", "i")))


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_compressed_files(tmp_path: Path, ending: str) -> None:
    pack = {"gz": gzip.compress, "zst": zstandard.compress}[ending]
    packed = pack(b"u,i\n1,2\n") + pack(b"3,4\n")  # members one after the other
    path = tmp_path / f"a.{ending}"
    assert read(path, packed, layout())[0] == {"u": ["1", "3"], "i": ["2", "4"]}
    with pytest.raises(InputError, match="compression is damaged"):
        read(path, packed[:-3], layout())
    with pytest.raises(InputError, match="compression is damaged"):
        read(path, b"this is\0not compressed", layout())


def test_json_lines(tmp_path: Path) -> None:
    data = (
        b'{"u": "a", "i": 1, "x": {}}\n[1]\n{"u": 2.5}\nnot json\n\n'
        b'{"u": "\\ud800", "i": true}\n{"u": "\xc3\xa9", "i": "\\u00e9"}\n'
    )
    columns, lines, rejects = read(
        tmp_path / "a", data, layout(format="jsonl", wanted=("u", "i")), jsonlines
    )
    assert columns == {"u": ["a", "2.5", None, "é"], "i": ["1", None, "true", "é"]}
    assert lines == [1, 3, 6, 7]
    assert rejects == {2: ("json", b"[1]"), 4: ("json", b"not json"), 5: ("json", b"")}


def test_parquet_is_read_by_row_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"u": ["a", "b", "c"], "i": [1, 2, 3]}), sink, row_group_size=2)
    shape = layout(format="parquet", wanted=("u", "i"))
    source_columns, lines, _ = read(tmp_path / "a", sink.getvalue(), shape, columnar)
    assert source_columns == {"u": ["a", "b", "c"], "i": [1, 2, 3]}
    assert lines == [1, 2, 3]
    source = find_sources(str(tmp_path / "a"))[0]
    assert columnar.slice_file(source, shape) == [(0, -1)]  # a small file is one task's
    monkeypatch.setattr(columnar, "SLICE_BYTES", 1)
    assert columnar.slice_file(source, shape) == [(0, 1), (1, 2)]
    assert read(tmp_path / "a", sink.getvalue(), shape, columnar)[1] == [1, 2, 3]
    batch = next(columnar.read_slice(FileSlice(0, source.url, "a", 1, 2, 1), shape))
    assert batch.raw(np.array([0])).to_pylist() == [b'{"u": "c", "i": 3}']
    with pytest.raises(InputError, match="has no column 'x'; it has 'u', 'i'"):
        next(columnar.read_slice(FileSlice(0, source.url, "a", 0, -1, 1), layout(wanted=("x",))))


def test_a_file_that_is_no_parquet(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no Parquet file"):
        read(tmp_path / "a", b"u,i\n", layout(format="parquet"), columnar)


FIELDS = st.text(st.sampled_from('ab,"\n\té '), max_size=6)


@given(st.lists(st.tuples(FIELDS, FIELDS), min_size=1, max_size=8), st.integers(1, 40))
def test_what_pythons_csv_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, records: list[tuple[str, str]], size: int
) -> None:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([("u", "i"), *records])
    path = tmp_path_factory.mktemp("csv") / "a"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_lines, "_READ_BYTES", size)
        columns, _, rejects = read(path, out.getvalue().encode(), layout())
    found = list(zip(columns["u"], columns["i"], strict=True))
    assert found == records
    assert rejects == {}


def test_a_quoted_field_is_as_long_as_a_line_may_be(tmp_path: Path) -> None:
    long = "x" * 300_000
    rows = f'"{long} ""a""",1\n{long}"b,2\n"{long}\n{long}",3\n'.encode()
    columns, _, rejects = read(tmp_path / "a", b"u,i\n" + rows, layout())
    assert columns["i"] == ["1", "2", "3"]
    assert columns["u"][0] == f'{long} "a"'
    assert columns["u"][2] == f"{long}\n{long}"
    assert not rejects


def test_a_quoted_field_of_many_lines(tmp_path: Path) -> None:
    text = "\n".join(f"line {n}, of a letter" if n % 7 else "" for n in range(3000))
    data = f'u,i\na,1\n"{text}",2\nb,3\n'.encode()
    columns, _, rejects = read(tmp_path / "a", data, layout())
    assert columns == {"u": ["a", text, "b"], "i": ["1", "2", "3"]}
    assert not rejects
    # A quote that was never closed, and 3,000 sound rows before the next quote.
    rows = "".join(f"a{n},{n}\n" for n in range(3000))
    columns, _, rejects = read(tmp_path / "a", f'u,i\n"a,1\n{rows}b",2\n'.encode(), layout())
    assert columns["i"] == [*map(str, range(3000)), "2"]
    assert rejects == {2: ("quote", b'"a,1')}


def test_records_without_newlines_are_read_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_lines, "_READ_BYTES", 1000)
    shape = layout(format="jsonl", wanted=("u", "i"), max_line_bytes=4096)
    records = [f'{{"u": "}}{{{n}", "i": "{"x" * (n % 50)}\\""}}' for n in range(3000)]
    long = '{"u": "' + "y" * 5000 + '", "i": 1}'
    data = "".join([*records[:1000], "\n", *records[1000:2000], "\n", long, "\n", *records[2000:]])
    columns, lines, rejects = read(tmp_path / "a", data.encode(), shape, jsonlines)
    assert columns["u"] == [f"}}{{{n}" for n in range(3000)]
    assert lines == [1] * 1000 + [2] * 1000 + [4] * 1000
    assert {line: reason for line, (reason, _) in rejects.items()} == {3: "line_too_long"}
