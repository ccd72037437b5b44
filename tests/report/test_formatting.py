from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedmill.pipeline.report import formatting


@given(st.recursive(st.text(), lambda inner: st.lists(inner, max_size=3)))
def test_embedded_json_reads_back_and_cannot_end_its_element(value: object) -> None:
    text = formatting.embedded_json(value)
    assert json.loads(text) == value
    assert not set(text) & set("<>&\u2028\u2029")


def test_a_very_long_title_is_cut() -> None:
    assert len(formatting.item_title("x" * 5000)) < 200
    assert formatting.item_title("") == "<bdi>(empty)</bdi>"


@pytest.mark.parametrize(
    ("value", "want"),
    [(None, "–"), (0.0421, "42 ms"), (1.25, "1.2 s"), (99.94, "99.9 s"), (125, "2 min 5 s"),
     (7384, "2 h 3 min")],
)  # fmt: skip
def test_seconds(value: float | None, want: str) -> None:
    assert formatting.seconds(value).replace("\N{NO-BREAK SPACE}", " ") == want


@pytest.mark.parametrize(
    ("value", "want"),
    [(None, "–"), (0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (2.5e9, "2.5 GB"),
     (3e15, "3000.0 TB")],
)  # fmt: skip
def test_size(value: float | None, want: str) -> None:
    assert formatting.size(value).replace("\N{NO-BREAK SPACE}", " ") == want


def test_figures() -> None:
    assert formatting.decimal(0.13054) == "0.1305"
    assert formatting.decimal(None) == formatting.decimal(float("nan")) == "–"
    assert formatting.ratio(0.2, 0.1) == "2.00×"
    assert formatting.ratio(0.2, 0) == formatting.ratio(None, 1) == "–"
    assert (formatting.plural(1, "item"), formatting.plural(2000, "item")) == (
        "1 item",
        "2,000 items",
    )
    assert (formatting.signed(0.5), formatting.signed(-0.5)) == ("+0.50", "−0.50")
