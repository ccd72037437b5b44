from __future__ import annotations

import io

import pytest

from embedmill.pipeline.store.run import Run
from embedmill.pipeline.terminal import Terminal, duration, progress_line, si
from tests.support.worlds import config


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (9.9, "9.9 s"), (9.97, "10 s"), (59.4, "59 s"), (59.6, "1 min 00 s"),
     (185, "3 min 05 s"), (7620, "2 h 07 min")],
)  # fmt: skip
def test_duration(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0"), (999, "999"), (12_300, "12.3 k"), (999_700, "1 M"), (4_560_000, "4.56 M"),
     (7.89e9, "7.89 G")],
)  # fmt: skip
def test_si(value: float, said: str) -> None:
    assert si(value) == said


def test_progress_line() -> None:
    line = progress_line(500, 1000, "pairs", 250.0, {"loss": 0.3141})
    assert line == "50 % · 500 pairs · 250 pairs/s · 2.0 s left · loss 0.3141"
    assert progress_line(5, None, "rows", 0.0, {}) == "5 rows"


def test_speed_and_time_left_are_those_of_this_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    out = io.StringIO()
    with Terminal(out).stage("train") as progress:
        now[0] = 130.0  # it took half a minute to start, and 600 pairs were done before
        progress.update(600, 1000, "pairs")
        now[0] = 150.0
        progress.update(800, 1000, "pairs")
        now[0] = 170.0
        progress.update(700, 1000, "pairs")  # a worker died: it goes on from a checkpoint
    lines = [line.strip() for line in out.getvalue().splitlines()[1:]]
    assert lines == [
        "train     60 % · 600 pairs",
        "train     80 % · 800 pairs · 10 pairs/s · 20 s left",
        "train     70 % · 700 pairs",
    ]


def test_plain_lines_where_there_is_no_terminal(tmp_path: object) -> None:
    out = io.StringIO()
    terminal = Terminal(out)
    assert not terminal.live
    with terminal.stage("train") as progress:
        progress.update(1, 10, "pairs")  # too soon for a line
        progress.note("epoch 1 of 3")
    assert out.getvalue().splitlines() == ["train     started", "          epoch 1 of 3"]


@pytest.mark.parametrize("merged", ["merged", "filtered"])
def test_lines_fit_80_columns(tmp_path: object, merged: str) -> None:
    run = Run(config(f"{tmp_path}/runs", "log.tsv"))
    counters = {"rows_in": 3_000_000_000, "events": 2_000_000_000, "rejected": 500_000_000,
                "merged": 0, merged: 500_000_000}  # fmt: skip
    out = run.writer("events")
    out.started -= 7000
    text = io.StringIO()
    terminal = Terminal(text)
    entry = {"path": "data/a", "bytes": 1, "sha256": "0" * 64}
    from embedmill.schemas.manifest import FileEntry

    out.add([FileEntry(**entry, rows=counters["events"])])  # type: ignore[arg-type]
    done = out.commit(counters)
    terminal.finished("events", done)
    terminal.skipped("events", done)
    lines = text.getvalue().splitlines()
    assert [line.split()[-1] for line in lines] == ["min", "date"]
    assert f"500 M {'merged' if merged == 'merged' else 'dropped'}" in lines[0]
    assert max(map(len, lines)) <= 80


def test_quiet_says_nothing() -> None:
    out = io.StringIO()
    with Terminal(out, quiet=True).stage("train") as progress:
        progress.note("epoch")
    assert out.getvalue() == ""


def test_a_live_line_is_redrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tty(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    out = Tty()
    terminal = Terminal(out)
    assert terminal.live
    with terminal.stage("train") as progress:
        progress.update(5, 10, "pairs", loss=1.5)
        progress.note("epoch 1")
    assert "50 % · 5 pairs" in out.getvalue()
    assert "epoch 1" in out.getvalue()
