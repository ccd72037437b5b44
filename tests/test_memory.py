"""Peak memory of a process and its descendants, and free memory."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from embedmill.pipeline import memory as room
from embedmill.pipeline.cpu_time import CpuTime
from embedmill.pipeline.memory import _INTERVAL, PeakMemory, free_memory, resident_bytes

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the system has no /proc"
)
_SIZE = 96 << 20
_CHILD = f"data = b'x' * {_SIZE}; print(len(data), flush=True); input()"


def test_a_child_counts_while_it_lives() -> None:
    with PeakMemory() as memory:
        before = memory.measured()["peak_bytes"]
        with subprocess.Popen(
            [sys.executable, "-c", _CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            child.stdout.readline()
            during = memory.measured()["peak_bytes"]
            assert resident_bytes(child.pid) >= _SIZE
            child.communicate(b"\n")
        assert during - before >= 0.9 * _SIZE
        assert memory.measured()["peak_bytes"] >= during  # the peak stays
    assert resident_bytes(child.pid) == 0


def test_a_peak_between_two_measurements_is_seen() -> None:
    with PeakMemory() as memory:
        start = memory.measured()["peak_bytes"]
        block = bytearray(b"x") * _SIZE
        time.sleep(1.5 * _INTERVAL)
        del block
        assert memory.measured()["peak_bytes"] - start >= 0.9 * _SIZE


def test_free_memory_is_that_of_the_tightest_group(tmp_path: Path) -> None:
    for name, text in (
        ("memory.max", "1000000"), ("memory.current", "700000"),
        ("memory.stat", "anon 5\ninactive_file 1000\nactive_file 20000\n"),
    ):  # fmt: skip
        (tmp_path / name).write_text(text)
    assert list(room._free_of_group(tmp_path)) == [321_000]
    (tmp_path / "memory.max").write_text("max")
    assert list(room._free_of_group(tmp_path)) == []
    assert 0 < free_memory() < 1 << 50


def test_processor_time_of_a_child_that_has_ended() -> None:
    used = CpuTime()
    work = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", work], check=True)
    assert 0.25 <= used.measured()["cpu_seconds"] < 5
