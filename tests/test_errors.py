from __future__ import annotations

import pickle
import traceback

import pytest

from embedmill.pipeline import errors
from embedmill.pipeline.errors import EmbedmillError, RejectsError


def test_a_sentence_says_where_what_and_what_to_do() -> None:
    error = EmbedmillError("the disk is full", where="/data", todo="Free some space")
    assert str(error) == "/data: the disk is full. Free some space"
    assert str(EmbedmillError("is empty", where="file:///log.csv")) == "/log.csv: is empty"


@pytest.mark.parametrize("name", [n for n in errors.__all__ if n[0].isupper()])
def test_errors_survive_the_trip_between_processes(name: str) -> None:
    error = getattr(errors, name)("what", where="there", todo="Do")
    back = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (type(back), str(back), back.todo) == (type(error), str(error), "Do")


def test_an_error_is_found_in_the_text_of_a_remote_traceback() -> None:
    try:
        raise RejectsError("3 of 4 lines\nare bad", where="log.tsv", todo="Look")
    except RejectsError:
        text = "Job aborted: " + traceback.format_exc() + "\n\tat org.apache.spark"
    found = errors.from_text(text)
    assert type(found) is RejectsError
    assert str(found) == "log.tsv: 3 of 4 lines are bad. Look"


@pytest.mark.parametrize("text", ["", "ValueError: x", "embedmill.pipeline.errors.Other: x"])
def test_other_texts_hold_none_of_ours(text: str) -> None:
    assert errors.from_text(text) is None
