from __future__ import annotations

import copy
import queue
import threading
import time
from collections.abc import Iterator

import pyarrow as pa
import pytest

from embedmill.pipeline.prepare.engine import backpressure
from embedmill.pipeline.prepare.engine.backpressure import LOCAL, Backpressure

ROWS = 1000
SIZE = 8 * ROWS


def batches(number: int) -> Iterator[pa.RecordBatch]:
    for _ in range(number):
        yield pa.record_batch({"n": pa.array(range(ROWS), pa.int64())})


def test_producers_keep_in_step_with_a_slow_consumer() -> None:
    limits = Backpressure(max_outstanding=3 * SIZE, patience=10)
    between: queue.Queue[pa.RecordBatch] = queue.Queue()

    def produce() -> None:
        for batch in limits.throttle(batches(20)):
            between.put(batch)

    producers = [threading.Thread(target=produce) for _ in range(4)]
    for producer in producers:
        producer.start()
    most = 0
    for _ in range(80):
        batch = between.get(timeout=10)
        time.sleep(0.002)
        most = max(most, between.qsize())
        limits.consumed(batch.nbytes)
    for producer in producers:
        producer.join(10)
        assert not producer.is_alive()
    assert 0 < most <= 3 + 2 * len(producers)  # each may have one on its way in and one out
    assert limits.outstanding == 0


def test_rows_that_nobody_consumes_stop_no_reader() -> None:
    limits = Backpressure(max_outstanding=SIZE // 2, patience=0.001)
    assert len(list(limits.throttle(batches(30)))) == 30
    assert limits.outstanding == 0


def test_few_read_at_once() -> None:
    limits = Backpressure(max_readers=2)
    most, ended = [], []

    def read() -> None:
        for _ in limits.limit_readers(batches(20)):
            most.append(limits.readers)
            time.sleep(0.0005)
        ended.append(1)

    readers = [threading.Thread(target=read) for _ in range(10)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(10)
    assert (max(most), len(ended), limits.readers) == (2, 10, 0)


def test_one_more_reads_where_the_others_wait_for_it() -> None:
    limits = Backpressure(max_readers=1, stall=0.05)
    first = limits.limit_readers(batches(2))
    next(first)
    assert len(list(limits.limit_readers(batches(3)))) == 3
    first.close()  # type: ignore[attr-defined]
    assert limits.readers == 0


def test_rows_may_take_more_bytes_where_they_arrive() -> None:
    limits = Backpressure()
    limits.consumed(100 * SIZE)
    assert limits.outstanding == 0


def test_a_task_in_this_process_keeps_its_limits() -> None:
    assert copy.copy(LOCAL) is LOCAL  # as pickle does it


def test_a_task_in_another_process_has_no_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    restore, sender = LOCAL.__reduce__()
    monkeypatch.setattr(backpressure, "LOCAL", Backpressure())  # as another process has it
    received = restore(*sender)
    received.patience = 1000
    assert len(list(received.limit_readers(received.throttle(batches(300))))) == 300
    assert (received.max_readers, received.max_outstanding) == (float("inf"), float("inf"))
