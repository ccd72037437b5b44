"""Stage `vocab` on Sail: exact order, thresholds, and the same result from any layout of files."""

from __future__ import annotations

import gzip
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.prepare.engine import frames
from embedmill.pipeline.prepare.vocabulary import row_numbers
from tests.support.prepare_builds import DATA_STAGES, build, hashes, rows, tree, written

Pair = tuple[str, str]


def pairs_log(path: Path, pairs: list[Pair]) -> str:
    return str(written(path, [f"{u}\t{i}\t{n}\t1" for n, (u, i) in enumerate(pairs)]))


def ranked(counts: Counter[str]) -> list[tuple[int, str, int, int, bool]]:
    order = sorted(counts.items(), key=lambda c: (-c[1], c[0].encode()))
    return [(row, name, count, 0, True) for row, (name, count) in enumerate(order)]


def core(pairs: list[Pair], users: int, items: int) -> list[Pair]:
    """The (users, items)-core, the slow way: one id at a time."""
    while True:
        by_user, by_item = Counter(u for u, _ in pairs), Counter(i for _, i in pairs)
        rare_user = next((u for u, n in by_user.items() if n < users), None)
        rare_item = next((i for i, n in by_item.items() if n < items), None)
        if rare_user is not None:
            pairs = [p for p in pairs if p[0] != rare_user]
        elif rare_item is not None:
            pairs = [p for p in pairs if p[1] != rare_item]
        else:
            return pairs


def random_pairs(number: int, seed: int) -> list[Pair]:
    draw = random.Random(seed)
    return sorted(
        {
            (f"u{int(draw.random() ** 2 * 40)}", f"ï{int(draw.random() ** 2 * 30)}")
            for _ in range(number)
        }
    )


def test_rows_by_falling_count_ties_by_bytes(tmp_path: Path, sail: SparkSession) -> None:
    pairs = [("b", "x"), ("a", "x"), ("B", "x"), ("é", "y"), ("é", "x"), ("z", "y"), ("🎬", "z")]
    run = build(sail, tree(tmp_path, pairs_log(tmp_path / "log", pairs)), "vocab")
    found = [tuple(r.values()) for r in rows(run, "vocab", "users")]
    assert found == ranked(Counter(u for u, _ in pairs))
    assert [r[1] for r in found] == ["é", "B", "a", "b", "z", "🎬"]
    found = [tuple(r.values()) for r in rows(run, "vocab", "items")]
    assert found == [(0, "x", 4, 0, True), (1, "y", 2, 0, True), (2, "z", 1, 0, True)]


@pytest.mark.parametrize("least", [(1, 1), (3, 1), (1, 4), (4, 4)])
def test_thresholds_until_stable(
    tmp_path: Path, sail: SparkSession, least: tuple[int, int]
) -> None:
    pairs = random_pairs(260, 5)
    thresholds = {"min_user_count": least[0], "min_item_count": least[1]}
    run = build(sail, tree(tmp_path, pairs_log(tmp_path / "log", pairs), vocab=thresholds), "vocab")
    left = core(pairs, *least)
    assert 0 < len(left) <= len(pairs)
    for folder, side in (("users", 0), ("items", 1)):
        found = [tuple(r.values()) for r in rows(run, "vocab", folder)]
        assert found == ranked(Counter(p[side] for p in left))
    counters = run.artifact("vocab").counters
    assert counters["events_in"] == len(pairs)
    assert counters["events_kept"] == len(left)
    assert counters["users_dropped"] == len({u for u, _ in pairs}) - len({u for u, _ in left})
    assert counters["items_dropped"] == len({i for _, i in pairs}) - len({i for _, i in left})
    assert not list((tmp_path / "tiny" / "vocab").glob("scratch/*/*"))


def test_thresholds_that_leave_nothing(tmp_path: Path, sail: SparkSession) -> None:
    log = pairs_log(tmp_path / "log", [("a", "x"), ("b", "y")])
    with pytest.raises(InputError, match=r"no event is left with vocab.min_user_count = 2"):
        build(sail, tree(tmp_path, log, vocab={"min_user_count": 2}), "vocab")


def test_many_ranges_and_files_give_the_same_rows(
    tmp_path: Path, sail: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sail's tasks run in this process, so they see smaller ranges and files."""
    pairs = random_pairs(300, 6) + [(f"once{n}", "x") for n in range(300)]
    monkeypatch.setattr(row_numbers, "_RANGE_ROWS", 37)
    monkeypatch.setattr(row_numbers, "ROWS_PER_FILE", 50)
    monkeypatch.setattr(row_numbers, "_SAMPLE", 4)
    run = build(sail, tree(tmp_path, pairs_log(tmp_path / "log", pairs)), "vocab")
    expected = ranked(Counter(u for u, _ in pairs))
    assert [tuple(r.values()) for r in rows(run, "vocab", "users")] == expected
    sizes = [f.rows for f in run.artifact("vocab").files("users")]
    assert sizes == [50] * (len(expected) // 50) + [len(expected) % 50]


NO_SHRINK = [p for p in Phase if p is not Phase.shrink]  # an example takes a second
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", "d", "ü"]),
        st.sampled_from(["x", "y", "z", "w"]),
        st.integers(0, 5),
        st.sampled_from(["1", "2.5", "0.1"]),
    ),
    min_size=1,
    max_size=60,
)


@settings(
    max_examples=8,
    deadline=None,
    phases=NO_SHRINK,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(EVENTS, st.randoms(use_true_random=False), st.integers(1, 5))
def test_shuffled_split_and_duplicated_files_give_identical_artifacts(
    tmp_path_factory: pytest.TempPathFactory,
    sail: SparkSession,
    events: list[tuple[str, str, int, str]],
    draw: random.Random,
    files: int,
) -> None:
    folder = tmp_path_factory.mktemp("property")
    often = [("a", "x", 6, "1"), ("a", "y", 7, "1")]  # one user meets the threshold
    lines = ["\t".join(map(str, event)) for event in events + often]
    one = written(folder / "one" / "log.tsv", lines)
    assert one.exists()
    shuffled = lines * 2  # every line is logged twice
    draw.shuffle(shuffled)
    for number in range(files):
        path = written(folder / "many" / f"{draw.random()}-{number}.tsv", shuffled[number::files])
        if number % 2:
            path.with_suffix(".tsv.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    sections = {"vocab": {"min_user_count": 2}} if draw.random() < 0.3 else {}
    runs = []
    for name, pieces in (("one", 8 << 20), ("many", 16)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(frames, "TASK_BYTES", pieces)  # so one is one task, the other many
            config = tree(folder / f"run-{name}", str(folder / name), **sections)
            runs.append(build(sail, config))
    assert hashes(runs[0], "events", "data") == hashes(runs[1], "events", "data")
    for stage in DATA_STAGES[1:]:
        assert hashes(runs[0], stage) == hashes(runs[1], stage)
    counts = runs[1].artifact("events").counters
    assert counts["rows_in"] == 2 * len(lines) == counts["events"] + counts["merged"]
