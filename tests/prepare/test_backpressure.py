from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator

import pyarrow as pa
import pytest

from embedmill.pipeline.prepare.engine import backpressure
from embedmill.pipeline.prepare.engine.backpressure import Pace, taken

ROWS = 1000
SIZE = 8 * ROWS


@pytest.fixture(autouse=True)
def from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages that other tests ran in this process have left their counts."""
    for name in ("_made", "_taken", "_reading"):
        monkeypatch.setattr(backpressure, name, 0)


def batches(number: int) -> Iterator[pa.RecordBatch]:
    for _ in range(number):
        yield pa.record_batch({"n": pa.array(range(ROWS), pa.int64())})


def lag() -> int:
    return backpressure._made - backpressure._taken


def test_makers_keep_in_step_with_a_slow_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backpressure, "AHEAD", 3 * SIZE)
    monkeypatch.setattr(backpressure, "_PATIENCE", 10)
    between: queue.Queue[pa.RecordBatch] = queue.Queue()

    def make() -> None:
        for batch in Pace().held_back(batches(20)):
            between.put(batch)

    makers = [threading.Thread(target=make) for _ in range(4)]
    for maker in makers:
        maker.start()
    most = 0
    for _ in range(80):
        batch = between.get(timeout=10)
        time.sleep(0.002)
        most = max(most, between.qsize())
        taken(batch.nbytes)
    for maker in makers:
        maker.join(10)
        assert not maker.is_alive()
    assert 0 < most <= 3 + 2 * len(makers)  # each may have one on its way in and one out
    assert lag() == 0


def test_rows_that_nobody_collects_hold_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backpressure, "AHEAD", SIZE // 2)
    monkeypatch.setattr(backpressure, "_PATIENCE", 0.001)
    assert len(list(Pace().held_back(batches(30)))) == 30
    assert lag() == 0


def test_few_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backpressure, "READERS", 2)
    most, ended = [], []

    def read() -> None:
        for _ in Pace().in_turn(batches(20)):
            most.append(backpressure._reading)
            time.sleep(0.0005)
        ended.append(1)

    readers = [threading.Thread(target=read) for _ in range(10)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(10)
    assert (max(most), len(ended), backpressure._reading) == (2, 10, 0)


def test_one_more_reads_where_those_that_read_wait_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backpressure, "READERS", 1)
    monkeypatch.setattr(backpressure, "_STALL", 0.05)
    first = Pace().in_turn(batches(2))
    next(first)
    assert len(list(Pace().in_turn(batches(3)))) == 3
    first.close()  # type: ignore[attr-defined]
    assert backpressure._reading == 0


def test_rows_may_grow_on_the_way() -> None:
    taken(100 * SIZE)
    assert lag() == 0


def test_a_task_in_another_process_is_on_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = Pace()
    monkeypatch.setattr(backpressure, "AHEAD", 0)
    monkeypatch.setattr(backpressure, "_PATIENCE", 1000)
    monkeypatch.setattr(backpressure, "_HERE", "another")
    assert len(list(sent.held_back(batches(3)))) == 3
    assert lag() == 0
