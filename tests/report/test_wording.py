from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedmill.pipeline.report import svg, wording


@given(st.text())
def test_escaped_text_has_no_markup(text: str) -> None:
    shown = wording.escape(text)
    assert not set(shown) & set("<>\"'\0\x07")


@given(st.recursive(st.text(), lambda inner: st.lists(inner, max_size=3)))
def test_embedded_json_reads_back_and_cannot_end_its_element(value: object) -> None:
    text = wording.embedded_json(value)
    assert json.loads(text) == value
    assert not set(text) & set("<>&\u2028\u2029")


def test_a_very_long_title_is_cut() -> None:
    assert len(wording.title("x" * 5000)) < 200
    assert wording.title("") == "<bdi>(empty)</bdi>"


@pytest.mark.parametrize(
    ("value", "want"),
    [(None, "–"), (0.0421, "42 ms"), (1.25, "1.2 s"), (99.94, "99.9 s"), (125, "2 min 5 s"),
     (7384, "2 h 3 min")],
)  # fmt: skip
def test_seconds(value: float | None, want: str) -> None:
    assert wording.seconds(value).replace("\N{NO-BREAK SPACE}", " ") == want


@pytest.mark.parametrize(
    ("value", "want"),
    [(None, "–"), (0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (2.5e9, "2.5 GB"),
     (3e15, "3000.0 TB")],
)  # fmt: skip
def test_size(value: float | None, want: str) -> None:
    assert wording.size(value).replace("\N{NO-BREAK SPACE}", " ") == want


def test_figures() -> None:
    assert wording.figure(0.13054) == "0.1305"
    assert wording.figure(None) == wording.figure(float("nan")) == "–"
    assert wording.ratio(0.2, 0.1) == "2.00×"
    assert wording.ratio(0.2, 0) == wording.ratio(None, 1) == "–"
    assert (wording.plural(1, "item"), wording.plural(2000, "item")) == ("1 item", "2,000 items")
    assert (wording.signed(0.5), wording.signed(-0.5)) == ("+0.50", "−0.50")


@pytest.mark.parametrize(
    ("low", "high", "want"),
    [
        (0, 1, [0, 0.25, 0.5, 0.75, 1]),
        (0.13, 0.89, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (5, 5, [2, 4, 6, 8]),
        (0, 0, [-0.5, -0.25, 0, 0.25, 0.5]),
        (0.9441, 0.9994, [0.94, 0.96, 0.98, 1]),
    ],
)
def test_ticks(low: float, high: float, want: list[float]) -> None:
    assert svg.ticks(low, high) == pytest.approx(want)


@given(st.floats(-1e12, 1e12), st.floats(0, 1e12), st.integers(2, 9))
def test_ticks_cover_what_they_are_asked_for(low: float, extent: float, most: int) -> None:
    found = svg.ticks(low, low + extent, most)
    slack = 1e-6 * max(abs(low), extent, 1)
    assert found[0] <= low + slack
    assert found[-1] >= low + extent - slack
    assert 2 <= len(found) <= 2 * most + 2


def test_a_curve_of_one_epoch_is_a_dot_and_of_none_is_nothing() -> None:
    line = svg.Line([(1, 0.5)], "Loss")
    assert "<circle" in svg.curve(line, mark=None, marked="", x_name="epoch")
    assert svg.curve(svg.Line([], "Loss"), mark=None, marked="", x_name="epoch") == ""
