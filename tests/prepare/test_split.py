from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedmill.pipeline.errors import ContractError
from embedmill.pipeline.prepare.hashing import to_unit_interval
from embedmill.pipeline.prepare.splits.assignment import (
    TEST,
    TRAIN,
    VALID,
    SplitBoundaries,
    UserHistories,
    assign_splits,
    check_leakage,
)


def events(rows: list[tuple[int, int]], given_codes: list[int] | None = None) -> UserHistories:
    """(user, time) rows; the hash of row n is a scrambled n."""
    columns = np.array(rows, np.int64).reshape(-1, 2)
    size = len(columns)
    hashes = (np.arange(size, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)).view(np.int64)
    codes = np.array(given_codes if given_codes is not None else [-1] * size, np.int8)
    return UserHistories(columns[:, 0], np.arange(size), columns[:, 1], hashes, codes)


def test_last_holds_out_the_end_of_each_user() -> None:
    rows = [
        (1, 50),
        (1, 10),
        (1, 40),
        (1, 30),
        (1, 20),
        (2, 9),
        (2, 8),
        (2, 7),
        (3, 5),
        (4, 2),
        (4, 1),
    ]
    codes = assign_splits(events(rows), SplitBoundaries("last", 1, 1))
    assert codes.tolist() == [TEST, TRAIN, VALID, TRAIN, TRAIN, TEST, VALID, TRAIN, *[TRAIN] * 3]


def test_a_user_whose_events_would_all_be_held_out_trains() -> None:
    codes = assign_splits(events([(1, 1), (1, 2), (1, 3)]), SplitBoundaries("last", 2, 1))
    assert codes.tolist() == [TRAIN] * 3


def test_boundaries_in_time_are_global() -> None:
    rows = [(1, 1), (1, 5), (2, 6), (2, 9), (1, 4)]
    codes = assign_splits(events(rows), SplitBoundaries("time", 0, 0, valid_from=5, test_from=9))
    assert codes.tolist() == [TRAIN, VALID, VALID, TEST, TRAIN]


def test_random_takes_its_shares() -> None:
    codes = assign_splits(events([(0, 0)] * 100_000), SplitBoundaries("random", 0.1, 0.2))
    shares = np.bincount(codes, minlength=3) / 100_000
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.01)


def test_users_are_withheld_whole() -> None:
    rows = [(user, time) for user in range(20_000) for time in range(4)]
    log = events(rows)
    codes = assign_splits(log, SplitBoundaries("users", 0.1, 0.2, seed=1)).reshape(-1, 4)
    withheld = (codes == TEST).any(axis=1)
    assert (codes[withheld] == TEST).all()
    assert withheld.mean() == pytest.approx(0.2, abs=0.01)
    assert (codes[~withheld] == VALID).mean() == pytest.approx(0.1, abs=0.01)
    again = assign_splits(log, SplitBoundaries("users", 0.1, 0.2, seed=2)).reshape(-1, 4)
    both = (withheld & (again == TEST).any(axis=1)).mean()
    assert both == pytest.approx(0.04, abs=0.01)


def test_given_is_kept_and_a_share_of_train_validates() -> None:
    codes = [TRAIN] * 1000 + [VALID] * 10 + [TEST] * 10
    log = events([(0, 0)] * len(codes), codes)
    assert assign_splits(log, SplitBoundaries("given", 0, 0)).tolist() == codes
    found = assign_splits(log, SplitBoundaries("given", 0.2, 0))
    assert found[1000:].tolist() == codes[1000:]
    assert 150 < (found[:1000] == VALID).sum() < 250
    assert not (found[:1000] == TEST).any()


def test_the_draw_is_uniform_and_not_in_order_of_the_hash() -> None:
    hashes = np.linspace(-(2**62), 2**62, 10_000).astype(np.int64)  # in order, half the range
    draw = to_unit_interval(hashes)
    assert draw.min() >= 0
    assert draw.max() < 1
    assert np.histogram(draw, 10, (0, 1))[0] == pytest.approx(np.full(10, 1000), abs=150)
    assert abs(np.corrcoef(hashes, draw)[0, 1]) < 0.05


LOG = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=30)


@given(LOG, st.integers(0, 3), st.integers(0, 3))
def test_last_never_leaks(rows: list[tuple[int, int]], valid: int, test: int) -> None:
    log = events(rows)
    codes = assign_splits(log, SplitBoundaries("last", valid, test))
    check_leakage("last", log.user, log.time, codes)
    for user in set(log.user.tolist()):
        own = codes[log.user == user]
        held_out = len(own) > valid + test
        expected = [len(own) - valid - test, valid, test] if held_out else [len(own), 0, 0]
        assert np.bincount(own, minlength=3).tolist() == expected


@given(LOG, st.randoms())
def test_order_does_not_matter(rows: list[tuple[int, int]], draw: object) -> None:
    log = events(rows)
    order = np.random.default_rng(len(rows)).permutation(len(rows))
    shuffled = UserHistories(
        log.user[order], log.item[order], log.time[order], log.hash[order], log.given[order]
    )
    for boundaries in (SplitBoundaries("last", 1, 1), SplitBoundaries("random", 0.3, 0.3)):
        codes = assign_splits(log, boundaries)
        assert assign_splits(shuffled, boundaries).tolist() == codes[order].tolist()


@pytest.mark.parametrize("kind", ["last", "time"])
@pytest.mark.parametrize(
    "codes", [[TRAIN, TEST, TRAIN], [VALID, TRAIN, TRAIN], [TRAIN, TEST, VALID]]
)
def test_a_leak_is_found(kind: str, codes: list[int]) -> None:
    user, time = np.array([7, 7, 7]), np.array([1, 2, 3])
    with pytest.raises(ContractError, match=f"split '{kind}' leaks: an event of user row 7"):
        check_leakage(kind, user, time, np.array(codes, np.int8))
    check_leakage("random", user, time, np.array(codes, np.int8))


def test_a_leak_between_users_counts_for_time_only() -> None:
    user, time, codes = np.array([1, 2]), np.array([1, 2]), np.array([TEST, TRAIN], np.int8)
    check_leakage("last", user, time, codes)
    with pytest.raises(ContractError):
        check_leakage("time", user, time, codes)
