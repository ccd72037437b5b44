"""What tools are compared by: drawn users and what is held out of them, how far a program came."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_the_last_events_are_found_in_a_log(tmp_path: Path) -> None:
    """Four users: three events, the last one of a seen item; four events; two; a row twice."""
    from harness.drawn_users import DrawnUsers
    from harness.power_law_log import ids_of

    user = np.array([0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 3])
    item = np.array([5, 6, 5, 1, 2, 3, 4, 1, 2, 7, 7, 8])
    time = np.array([1, 2, 3, 9, 8, 7, 6, 1, 2, 4, 4, 5])
    table = {"user": ids_of("user", user), "item": ids_of("item", item), "time": time}
    pq.write_table(pa.table(table), tmp_path / "part-00000.parquet")
    drawn = DrawnUsers.of(tmp_path, (4, 9), 10)
    place = {raw: number for number, raw in enumerate(drawn.ids.to_pylist())}
    first, second = (place[raw] for raw in ids_of("user", np.arange(2)).to_pylist())
    assert len(place) == 2  # not user 3: its event that came twice is one of two
    assert drawn.test[[first, second]].tolist() == [5, 1]
    assert drawn.relevant.lengths[[first, second]].tolist() == [0, 1]
    seen = drawn.seen.select(torch.tensor([first, second]))
    assert seen.rows.tolist() == [5, 6, 2, 3, 4]
    right = {"user": ids_of("user", np.array([1])), "item": ids_of("item", np.array([1]))}
    assert drawn.agreement(pa.table(right)) == 0.5
    # One user has a relevant item, which is its second answer; nobody has twenty answers.
    answers = {
        "user": ids_of("user", np.array([1, 1, 0])),
        "rank": np.array([1, 2, 1]),
        "item": ids_of("item", np.array([8, 1, 8])),
    }
    found = drawn.quality(pa.table(answers))
    assert found == pytest.approx({"recall@20": 1, "ndcg@20": 1 / np.log2(3), "answered": 0})
    # The vectors say the same of the item, which is first once seen items are left out.
    vectors = pa.FixedSizeListArray.from_arrays(np.array([3, 4, 0, 1], np.float32), 2)
    items = pa.table({"id": ids_of("item", np.array([2, 1])), "vector": vectors})
    users = pa.table({"id": drawn.ids, "vector": vectors[1:].take([0, 0])})
    exact = drawn.exact_quality(users, items)
    assert exact == pytest.approx({"recall@20": 1, "ndcg@20": 1})


def test_a_step_log_says_how_far_a_program_came(tmp_path: Path) -> None:
    from harness.step_log import StepLog

    steps = StepLog(tmp_path / "steps.jsonl")
    assert steps.read().unfinished == ""
    with steps.step("prepare"):
        assert steps.read().unfinished == "prepare"
    steps.seconds("prepare", 10.0)
    steps.figures({"users": 3.0})
    with pytest.raises(ValueError, match="no"), steps.step("train"):
        raise ValueError("no")
    found = steps.read()
    assert found.unfinished == "train"
    assert found.figures == {"users": 3.0}
    assert list(found.seconds) == ["prepare"]
    assert found.seconds["prepare"] == pytest.approx(10.0, abs=0.5)


def test_what_finished_is_compared_with_ours(tmp_path: Path) -> None:
    import whole_line_peers as peers

    flat = {"ours.status": "done", "hand_made.status": "done", "spark.status": "out of time"}
    for name, figures in (("ours", (10, 8, 2)), ("hand_made", (20, 2, 3)), ("spark", (9, 9, 9))):
        for key, value in zip(("seconds", "cpu_seconds", "peak_gib"), figures, strict=True):
            flat[f"{name}.{key}"] = value  # type: ignore[assignment]
    assert peers.ratios({**flat, "ours.seconds.evaluate": 5}) == {
        "seconds.hand_made_over_ours": 2,
        "cpu_seconds.hand_made_over_ours": 0.25,
        "peak_gib.hand_made_over_ours": 1.5,
        "seconds.hand_made_over_ours_unevaluated": 4,
    }
    waiting = ["sh", "-c", f'echo \'{{"begun": "train"}}\' > {tmp_path}/steps.jsonl; sleep 60']
    found = peers.measured("spark", waiting, tmp_path, 1)
    assert (found["status"], found["unfinished"]) == ("out of time", "train")
    refused = ["sh", "-c", "echo java.lang.OutOfMemoryError; exit 1"]
    assert peers.measured("spark", refused, tmp_path, 9)["status"] == "out of memory"
