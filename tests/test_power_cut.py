"""A power cut after any change of files: what readers find is whole, the same command goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedmill.pipeline.store import lease
from embedmill.pipeline.store.storage import Storage
from tests.support.crash_points import World
from tests.support.crash_roots import copied, told_of
from tests.support.crash_scenarios import SCENARIOS, SHARES, WORLD, contents, look
from tests.support.power_cut import Disk, Files, store_files

CASES = [(name, share) for name in SCENARIOS for share in range(SHARES.get(name, 1))]
# The disk loses all names that were not synced, or about half of them.
SEEDS = (None, 1, 2)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return WORLD.write(tmp_path_factory.mktemp("log") / "log.tsv")


def cut_at_each(
    name: str,
    folder: Path,
    log: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    stride: int,
    step: int,
    share: int = 0,
) -> int:
    """Cut the power after changes of files; returns the number of cuts.

    Args:
        name: of the scenario.
        folder: for roots.
        log: the raw log.
        monkeypatch: lets the process that was cut off be gone.
        stride: the power is cut after every so many changes, once for each of SEEDS.
        step: every so many of these cuts are tried.
        share: number of the first one that is tried.
    """
    scenario, start = SCENARIOS[name], str(folder / "start")
    Path(start).mkdir()
    scenario.prepare(start, log)
    before, root = contents(start), copied(start)
    cuts: list[tuple[str, Files]] = []
    with Disk(root).watched() as disk:

        def cut(change: str) -> None:
            if len(world.log) % stride == 0:
                cuts.extend((f"{change} {seed}", disk.after_cut(seed)) for seed in SEEDS)

        world = World(seen=cut)
        with told_of(root, world):
            scenario.command(root, log)
        cuts.append(("the end", disk.after_cut()))
    after = contents(root)
    monkeypatch.setattr(lease, "is_running", lambda *_: False)
    tried = cuts[share::step]
    for number, (at, files) in enumerate(tried):
        left = f"{folder}/cut-{number}"
        store_files(files, left)
        found = look(left)
        for part, content in found.items():
            assert content in (before.get(part), after.get(part)), (at, part)
        scenario.command(left, log)
        assert contents(left) == after, at
    print(f"{name}: {len(world.log)} changes of files, {len(tried)} cuts")
    return len(tried)


def test_power_cuts(tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cut_at_each("line", tmp_path, log, monkeypatch, stride=19, step=5) >= 3


@pytest.mark.exhaustive
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "share"), CASES)
def test_every_power_cut(
    name: str, share: int, tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = SHARES.get(name, 1)
    assert cut_at_each(name, tmp_path, log, monkeypatch, stride=1, step=step, share=share) >= 4


def test_bytes_that_were_not_synced_are_lost(tmp_path: Path) -> None:
    root = tmp_path / "disk"
    root.mkdir()
    with Disk(str(root)).watched() as disk:
        Storage(str(root)).write("synced", b"1")
        assert disk.after_cut() == {}
        Storage(str(root)).sync_folders(["synced"])
        (root / "unsynced").write_bytes(b"2")
        (root / "synced").rename(root / "moved")
        assert disk.after_cut() == {"synced": b"1"}
        kept = [disk.after_cut(seed) for seed in range(40)]
        assert {} in kept
        assert {"moved": b"1", "unsynced": b""} in kept
