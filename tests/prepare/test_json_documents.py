"""Records of JSON documents, whatever the document's layout and wherever its bytes are cut."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedmill.pipeline.prepare.parse.rejects import MAX_RAW
from embedmill.pipeline.prepare.readers.json_documents import is_document, whole_records

TEXT = st.text(alphabet='ab{}[]",:\\\n é', max_size=6)
VALUES = st.recursive(
    st.none() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
RECORDS = st.lists(st.dictionaries(TEXT, VALUES, max_size=3), max_size=5)


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def read(data: bytes, size: int, most: int = 1 << 20) -> list[tuple[bytes, bool]]:
    """Lines, and whether each is too long."""
    found = whole_records(pieces(data, size), most)
    return [(line, long) for lines, long in found for line in lines.split(b"\n")]


@settings(deadline=None, max_examples=200)
@given(RECORDS, st.sampled_from([None, 0, 2]), st.booleans(), st.integers(1, 40))
def test_records_are_those_that_were_written(
    records: list[dict[str, Any]], indent: int | None, in_array: bool, size: int
) -> None:
    if in_array:
        data = json.dumps(records, indent=indent).encode()
        assert is_document(data)
    else:
        data = "\n".join(json.dumps(one, indent=indent) for one in records).encode()
    found = read(data, size)
    assert [json.loads(line) for line, _ in found] == records
    assert not any(long for _, long in found)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_record_that_is_too_long_is_one_reject_and_the_next_is_read(size: int) -> None:
    long = {"u": "x{}\\" * 50, "more": [{"a": '"'}] * 20}
    data = json.dumps([{"u": 1}, long, {"u": 2}], indent=1).encode()
    found = read(data, size, most=100)
    if size == 1000:  # the whole file at once: what is longer is found when lines are decoded
        assert [json.loads(line) for line, _ in found] == [{"u": 1}, long, {"u": 2}]
        return
    assert [is_long for _, is_long in found] == [False, True, False]
    assert json.loads(found[0][0]) == {"u": 1}
    assert found[1][0].startswith(b'{\t  "u": "x{}')
    assert len(found[1][0]) <= MAX_RAW
    assert json.loads(found[2][0]) == {"u": 2}


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_what_is_no_record_is_a_line(size: int) -> None:
    data = b'[{"u":1}, null, {"u":\n"2}, 5\n{"u":3}} ]\n oops'
    # The quote that is missing ends with its line; the brace that is missing, at the next one.
    assert read(data, size) == [
        (b'{"u":1}', False),
        (b"null", False),
        (b'{"u":\t"2}, 5\t{"u":3}}', False),
        (b"oops", False),
    ]


@pytest.mark.parametrize(
    ("start", "document"),
    [
        (b"[{", True),
        (b" [\r\n  {", True),
        (b"[]", True),
        (b"[", True),
        (b"{\r\n", True),
        (b'{"u": 1}', False),
        (b'{"u":', False),
        (b'["a", "b"]', False),
        (b"[1,", False),
        (b"u,i", False),
        (b"", False),
    ],
)
def test_a_document_is_known_by_its_start(start: bytes, document: bool) -> None:
    assert is_document(start) is document
