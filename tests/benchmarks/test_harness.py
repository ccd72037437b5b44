"""What the benchmarks share: children that answer, rows by a power law, one command line."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from embedmill.pipeline.memory import descendants
from tests.support.train_drivers import gone

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = sorted(path.stem for path in BENCHMARKS.glob("*.py"))
CHILD = """
import sys
from harness.children import call, serve

def doubled(number): return {"twice": 2 * number, "mib": len(bytearray(64 << 20)) >> 20}
def failing(_): sys.exit(3)

if __name__ == "__main__":
    serve({"doubled": doubled, "failing": failing})
    found = call(__file__, "doubled", 21)
    print(found.value["twice"], found.value["mib"])
    call(__file__, "failing", None)
"""


def test_a_child_answers_and_its_failure_is_the_parents(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(CHILD, encoding="utf-8")
    path = os.pathsep.join([str(BENCHMARKS), str(BENCHMARKS.parent)])
    answer = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.stdout.split() == ["42", "64"], answer.stderr
    assert answer.returncode == 3


def test_rows_follow_the_power_law(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from harness.power_law import draw_rows

    rows = draw_rows(1000, 400_000, np.random.default_rng(1), power=0.5)
    assert rows.min() == 0
    assert rows.max() == 999
    # The share of the first r of n rows is (r / n) ** (1 - power).
    assert np.mean(rows < 250) == pytest.approx(0.5, abs=0.005)


def test_a_node_dies_with_all_below_it_and_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from harness.clusters import Cluster
    from harness.nodes import Node

    # The script's children: one without work, and one whose title is that of a task of Ray.
    script = 'echo up; sleep 60 & bash -c "exec -a ray::_run sleep 60" & wait'
    nodes = [Node("idle", ["sleep", "60"], {}, tmp_path / "idle.log", "")]
    nodes.append(Node("busy", ["bash", "-c", script], {}, tmp_path / "busy.log", "^up"))
    try:
        for node in nodes:
            node.start()
        until = time.monotonic() + 10
        while not any(t.startswith("ray::_run") for t in nodes[1].titles()):
            assert time.monotonic() < until
        assert Cluster("", nodes, {}).busiest() == (nodes[1], 1)
        children = [pid for pid in descendants(nodes[1].pid) if pid != nodes[1].pid]
        nodes[1].kill()
        assert nodes[1].titles() == []
        assert gone(set(children), 10) == set()
        nodes[1].start()
        assert nodes[1].up
    finally:
        for node in nodes:
            node.close()


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_benchmark_has_the_same_command_line(name: str) -> None:
    text = (BENCHMARKS / f"{name}.py").read_text(encoding="utf-8")
    assert "parser_of(__doc__)" in text
    assert "argparse.ArgumentParser" not in text
    assert f"python benchmarks/{name}.py" in text
