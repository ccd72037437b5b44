"""Every change of files is a point at which a command may end: the same command ends well.

The whole line from raw log to pointer, a rebuild, a night that continues the one before it, a
publication, the removal of old runs, and a delta: on a local disk, in memory and on a bucket. At
each point the change is lost, done and reported as failed, half written, or late to be seen.
`tests/forget` has the points of `embedmill forget`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from embedmill.pipeline.store import lease
from embedmill.pipeline.store.storage import Storage
from tests.support.bucket import buckets_in_memory
from tests.support.crash_points import World
from tests.support.crash_roots import OUTCOMES, copied, told_of, uncopied
from tests.support.crash_scenarios import SCENARIOS, SHARES, WORLD, Scenario, contents, look

KINDS = ("local", "memory", "s3")
CASES = [
    (name, kind, share)
    for name, kind in itertools.product(SCENARIOS, KINDS)
    for share in range(SHARES.get(name, 1))
]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return WORLD.write(tmp_path_factory.mktemp("log") / "log.tsv")


@pytest.fixture(autouse=True)
def another_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process that stopped is this one, and would be found to run."""
    monkeypatch.setattr(lease, "is_running", lambda *_: False)
    with buckets_in_memory():
        yield


def started(scenario: Scenario, kind: str, folder: Path, log: Path) -> str:
    start = uncopied(kind, folder)
    scenario.prepare(start, log)
    return start


def undisturbed(scenario: Scenario, start: str, log: Path) -> tuple[dict[str, str], list[str]]:
    """What the command ends with, and its changes; readers look after each of them."""
    root = copied(start)
    before, states = contents(root), list[dict[str, str]]()
    world = World(seen=lambda _: states.append(look(root)))
    with told_of(root, world):
        scenario.command(root, log)
    after = contents(root)
    for state in states:
        for name, content in state.items():
            assert content in (before.get(name), after.get(name)), name
    if not scenario.undone:
        assert all(before.keys() <= state.keys() for state in states)
    return after, world.log


def stop_at(
    scenario: Scenario, start: str, log: Path, point: tuple[int, str], after: dict[str, str]
) -> None:
    """End at a point; then readers look, and the same command ends with the same content."""
    root, before = copied(start), contents(start)
    world = World(*point)
    # What it says does not matter: it is gone.
    with told_of(root, world), suppress(Exception):
        scenario.command(root, log)
    world.end()
    at = (world.log[point[0] :][:1], point)
    assert world.stopped or point[1] in ("done", "late"), at
    for name, content in look(root).items():
        assert content in (before.get(name), after.get(name)), (at, name)
    scenario.command(root, log)
    assert contents(root) == after, at
    left = [path for path in Storage(f"{root}/tiny").files() if path.endswith(".part")]
    assert not left or "lease/" in left[0], (at, left)  # killed before it had the lease


def stop_at_each(
    name: str,
    kind: str,
    folder: Path,
    log: Path,
    *,
    stride: int,
    only: str = "",
    step: int = 1,
    share: int = 0,
) -> int:
    """Stop at every `stride`-th change, in each way; returns the number of points.

    Args:
        name: of the scenario.
        kind: of the root.
        folder: for roots on a local disk.
        log: the raw log.
        stride: kinds of roots begin at different changes, and together stop at each one.
        only: an outcome; '' for all.
        step: every so many of these points are tried.
        share: number of the first one that is tried.
    """
    scenario = SCENARIOS[name]
    start = started(scenario, kind, folder, log)
    after, changes = undisturbed(scenario, start, log)
    first = (len(changes) // 3 + KINDS.index(kind)) % min(stride, len(changes))
    outcomes = [outcome for outcome in OUTCOMES[kind] if only in ("", outcome)]
    points = list(itertools.product(range(first, len(changes), stride), outcomes))
    points = points[share::step]
    for point in points:
        stop_at(scenario, start, log, point, after)
    print(f"{name} on {kind}: {len(changes)} changes of files, {len(points)} points")
    return len(points)


@pytest.mark.parametrize(
    ("name", "kind", "stride", "outcome"),
    [
        ("line", "local", 41, "half"),
        ("rebuild", "memory", 83, "done"),
        ("night", "s3", 53, "late"),
        ("gc", "local", 61, "lost"),
    ],
)
def test_crash_points(
    name: str, kind: str, stride: int, outcome: str, tmp_path: Path, log: Path
) -> None:
    assert stop_at_each(name, kind, tmp_path, log, stride=stride, only=outcome) >= 1


@pytest.mark.exhaustive
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "kind", "share"), CASES)
def test_every_crash_point(name: str, kind: str, share: int, tmp_path: Path, log: Path) -> None:
    step = SHARES.get(name, 1)
    assert stop_at_each(name, kind, tmp_path, log, stride=1, step=step, share=share) >= 6
