"""What stages ask of an engine: no product of rows, no single task, little on the driver.

The plans are those that Apache Spark has run, the final one of its adaptive execution included.
"""

from __future__ import annotations

import ast
import random
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql.classic.dataframe import DataFrame

from embedmill.pipeline import prepare
from embedmill.pipeline.config import parse
from embedmill.pipeline.prepare.vocabulary import diff
from embedmill.pipeline.store.run import Run, save_config
from tests.support.prepare_builds import Tree, build, tree

ROOM = Path(prepare.__file__).parent
# Where rows come to the driver, and why they are few however large the log is.
BOUNDED = {
    "task_report.run_tasks": "a row for each file that a task wrote and for each task's counts",
    "boundaries.boundary_times": "a histogram of 65,536 bins for each boundary",
    "diff._compare_side": "a row for each task, with the few ids that it names",
    "boundaries._valid_share": "100 distinct values of the split column",
    "row_numbers._bounds": "64 ids for each range of half a million",
    "row_numbers._offsets": "the size of each range of half a million ids",
    "shards._row_count": "one number",
}
# Methods that only frames have, which bring rows to the driver.
_TO_DRIVER = {
    "collect", "foreach", "foreachPartition", "isEmpty", "show", "toArrow", "toJSON",
    "toLocalIterator", "toPandas",
}  # fmt: skip
_NEVER = (
    "CartesianProduct", "BroadcastNestedLoopJoin", "rangepartitioning", "RoundRobinPartitioning",
    "Window", "TakeOrderedAndProject",
)  # fmt: skip
_INITIAL = "+- == Initial Plan =="
_SINGLE = re.compile(r"Exchange SinglePartition|hashpartitioning\(.*, 1\)")


@dataclass(frozen=True)
class Action:
    """Rows that came to the driver: to whom, how many, by which plan."""

    caller: str
    rows: int
    plan: str


@contextmanager
def watched() -> Iterator[list[Action]]:
    """Whatever Apache Spark brings to the driver inside the block."""
    found: list[Action] = []
    plain = DataFrame.toArrow

    def told(frame: DataFrame) -> Any:
        table = plain(frame)
        plan = frame._jdf.queryExecution().executedPlan().toString()
        found.append(Action(_caller(), table.num_rows, plan))
        return table

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DataFrame, "toArrow", told)
        yield found


def _caller() -> str:
    """The function of our room that asked, outside of the engine."""
    frame: Any = sys._getframe(2)
    while not (frame.f_code.co_filename.startswith(str(ROOM))):
        frame = frame.f_back
    while frame.f_code.co_filename.endswith("engine/frames.py"):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}"


def log(path: Path, events: int, users: int) -> str:
    draw = random.Random(7)
    lines = [
        f"u{int(draw.random() ** 2 * users)}\ti{int(draw.random() ** 2 * users)}"
        f"\t{draw.randrange(10**6)}\t1\t{draw.choice(('train', 'train', 'test'))}"
        for _ in range(events)
    ]
    header = "user_id\titem_id\ttime\trating\tpart"
    path.write_text("\n".join([header, *lines, "bad"]), encoding="utf-8")
    return str(path)


def trees(folder: Path, events: int, users: int) -> Iterator[Tree]:
    """Runs that take every path of the data stages."""
    paths = log(folder / f"{events}.tsv", events, users)
    root, lax = folder / f"runs-{events}", {"max_rejects": 0.9}
    pairs = {"window": 3, "subsample": 0.01, "with_valid": True}
    yield tree(
        root, paths, events=lax, vocab={"min_user_count": 5, "min_item_count": 5},
        shards={"split": "time", "valid": 0.1, "test": 0.1, "pairs": pairs},
    )  # fmt: skip
    given = {
        "split": "given",
        "valid": 0.1,
        "given_train": ["train"],
        "given_valid": [],
        "given_test": ["test"],
    }
    yield tree(
        root, paths, run={"name": "given"}, events={**lax, "split": "part"}, shards=given,
        vocab={"previous": "tiny", "oov_rows": 3, "min_user_count": 2, "min_item_count": 2},
    )  # fmt: skip


def built(session: SparkSession, folder: Path, events: int, users: int) -> None:
    runs = []
    for config in trees(folder, events, users):
        save_config(Run(parse(config)))
        runs.append(build(session, config).artifact("vocab"))
    diff.compare(session, runs[0], runs[1], 3)


@pytest.fixture(scope="module")
def actions(
    spark: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Action], list[Action]]:
    """What two logs ask for, of which the second is ten times the first, and so is a task's share.

    Shares are small: where one task would do, a single task would tell nothing.
    """
    found = []
    for scale in (1, 10):
        with pytest.MonkeyPatch.context() as patch, watched() as those:
            for name, value in {
                "engine.frames.TASK_BYTES": 1024, "readers.read_plan.TASK_BYTES": 2048,
                "readers.text_lines._SLICE_BYTES": 2048,
                "vocabulary.row_numbers._RANGE_ROWS": 4, "vocabulary.row_numbers._SAMPLE": 2,
            }.items():  # fmt: skip
                many = 1 if name.endswith("_SAMPLE") else scale
                patch.setattr(f"embedmill.pipeline.prepare.{name}", value * many)
            built(spark, tmp_path_factory.mktemp("plans"), 150 * scale, 20 * scale)
        found.append(those)
    return found[0], found[1]


@pytest.mark.exhaustive
@pytest.mark.spark
def test_no_step_of_a_plan_grows_in_one_place(
    actions: tuple[list[Action], list[Action]],
) -> None:
    for one in actions:
        assert {action.caller for action in one} == set(BOUNDED)
        for action in one:
            check(action)


def check(action: Action) -> None:
    """Raise AssertionError where a plan has a step that grows in one place."""
    for step in _NEVER:
        assert step not in action.plan, action
    _, _, initial = action.plan.partition(_INITIAL)
    # In the final plan it may stand: by then both sides were measured.
    assert "BroadcastExchange" not in initial, action
    lines = action.plan.splitlines()
    for number, line in enumerate(lines):
        if _SINGLE.search(line):
            assert _is_small(lines, number), f"{action.caller}, {line}\n{action.plan}"


def _is_small(lines: Sequence[str], number: int) -> bool:
    """Whether what goes to a single task is a list of files, a row for each task, or one file.

    The last is of the vocabulary, where a million ids make a file and a task.
    """
    above, below = " ".join(lines[max(0, number - 2) : number]), lines[number + 1]
    return bool(
        re.search(r"ReusedExchange \[path#", lines[number])
        or re.search(r"LocalTableScan|HashAggregate\(keys=\[\], functions=\[partial_", below)
        or re.search(r"MapInArrow _MonitoredTask\(row#\S+, id#\S+, n#\S+, missed#\S+, file#", above)
    )


@pytest.mark.exhaustive
@pytest.mark.spark
@pytest.mark.parametrize("caller", BOUNDED)
def test_ten_times_the_log_brings_no_more_rows(
    actions: tuple[list[Action], list[Action]], caller: str
) -> None:
    one, ten = (max(a.rows for a in those if a.caller == caller) for those in actions)
    if caller == "boundaries.boundary_times":
        assert one < ten <= 2 << 16  # an event of this log has a bin of its own
    else:
        assert ten <= 1.5 * one + 4  # samples vary


def test_what_comes_to_the_driver_is_listed() -> None:
    """Each place where frames are collected is in BOUNDED, and nothing is collected otherwise."""
    places = set()
    for path in sorted(ROOM.rglob("*.py")):
        for function in _functions(path):
            for node in ast.walk(function):
                if not isinstance(node, ast.Call):
                    continue
                if isinstance(node.func, ast.Name) and node.func.id == "collect":
                    places.add(f"{path.stem}.{function.name}")
                if isinstance(node.func, ast.Attribute) and node.func.attr in _TO_DRIVER:
                    assert (path.stem, function.name) == ("frames", "collect"), (
                        f"{path.name}, line {node.lineno}: .{node.func.attr}()"
                    )
    assert places == set(BOUNDED)


def _functions(path: Path) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            yield node
