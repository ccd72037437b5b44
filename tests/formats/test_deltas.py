"""Deltas: base and deltas are the export, and nothing else can be put together."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from embedmill.pipeline.errors import ContractError, CorruptArtifactError, InputError
from embedmill.pipeline.formats.delta_state import state_of
from embedmill.pipeline.formats.deltas import apply_deltas, read_delta, write_delta
from embedmill.pipeline.store.run import Run
from tests.export.test_alignment import exported
from tests.support.commands import Cli
from tests.support.runs import clusters

WORLD = dataclasses.replace(
    clusters(users=40, items=30, dim=8),
    titles=[f"Title {i}" for i in range(30)],
    categories=[["odd"] if i % 2 else [] for i in range(30)],
)
MOVED = {1: [3, 7], 2: [3, 11, 29]}  # items by night


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Item 5 is retired in the last night, in which user u40 is new; some items have moved."""
    root, runs, item_ND = tmp_path_factory.mktemp("nights"), [], WORLD.item_ND.copy()
    for night in range(3):
        contents = dataclasses.replace(WORLD, item_ND=item_ND.copy())
        if night == 2:
            users, item = [*WORLD.users, "u40"], dataclasses.replace(contents)
            splits = {**WORLD.splits, "train": [*WORLD.splits["train"], (40, 0, 1.0)]}
            user_ND = np.concatenate((WORLD.user_ND, WORLD.user_ND[:1]))
            contents = dataclasses.replace(item, users=users, user_ND=user_ND, splits=splits,
                                           retired=frozenset({"i5"}))  # fmt: skip
        align = {"align": "n0"} if night else {}
        runs.append(exported(contents, root, f"n{night}", **align))
        # Far enough to be a move, near enough that nothing else turns with it.
        item_ND[MOVED.get(night + 1, [])] += 0.2
    return runs


def test_base_and_deltas_are_the_export(nights: list[Run], tmp_path: Path, embedmill: Cli) -> None:
    folders = [str(tmp_path / name) for name in ("one", "two", "whole")]
    write_delta(nights[1], nights[0], [], folders[0])
    code, out, _ = embedmill([
        "delta", nights[2].storage.root, "--since", nights[0].storage.root, "--after", folders[0],
        "--output", folders[1], "--json",
    ])  # fmt: skip
    said = json.loads(out)
    assert (code, said["number"], said["users"]["came"], said["items"]["went"]) == (0, 2, 1, 1)
    code, _, _ = embedmill(["apply", nights[0].storage.root, *folders[:2], "--output", folders[2]])
    assert code == 0
    export = nights[2].artifact("export")
    for side in ("users", "items"):
        path = f"{side}/part-00000.parquet"
        assert (tmp_path / "whole" / path).read_bytes() == export.storage.read(path)


def test_a_vector_that_hardly_moved_stays_until_it_has(nights: list[Run], tmp_path: Path) -> None:
    epsilon, one, two = 0.25, str(tmp_path / "1"), str(tmp_path / "2")
    first = write_delta(nights[1], nights[0], [], one, epsilon=epsilon)
    second = write_delta(nights[2], nights[0], [one], two, epsilon=epsilon)
    apply_deltas(nights[0], [one, two], str(tmp_path / "whole"))
    got = pq.read_table(tmp_path / "whole" / "items" / "part-00000.parquet")
    want = state_of(nights[2].artifact("export"))["items"]
    vectors = [np.array(table["vector"].to_pylist()) for table in (got, want)]
    lengths = np.linalg.norm(np.array(state_of(nights[0].artifact("export"))["items"]["vector"]
                                      .to_pylist()), axis=1)  # fmt: skip
    distance = np.linalg.norm(vectors[0] - vectors[1], axis=1)
    assert 0 < distance.max() <= 1.1 * epsilon * lengths.mean()
    assert got["count"].equals(want["count"])
    assert first["items"]["moved"] + second["items"]["moved"] < 30


def test_what_is_no_chain_is_refused(nights: list[Run], tmp_path: Path) -> None:
    one, two = str(tmp_path / "1"), str(tmp_path / "2")
    write_delta(nights[1], nights[0], [], one)
    write_delta(nights[2], nights[0], [one], two)
    for chain in ([two], [one, one], [two, one], [one, two, two]):
        with pytest.raises(ContractError, match="not the one after delta"):
            apply_deltas(nights[0], chain, str(tmp_path / "no"))
    with pytest.raises(ContractError, match="another chain"):
        apply_deltas(nights[1], [one], str(tmp_path / "no"))
    with pytest.raises(InputError, match="has another delta already"):
        write_delta(nights[2], nights[0], [], one)
    assert write_delta(nights[1], nights[0], [], one) == read_delta(one)[0]
    with pytest.raises(InputError, match="there is no delta"):
        apply_deltas(nights[0], [str(tmp_path / "nowhere")], str(tmp_path / "no"))
    alone = exported(dataclasses.replace(WORLD, item_ND=-WORLD.item_ND), tmp_path / "r", "alone")
    with pytest.raises(InputError, match="another space"):
        write_delta(alone, nights[0], [], str(tmp_path / "3"))
    for name, change in (("manifest.json", b" "), ("items.parquet", b"x")):
        shutil.copytree(one, tmp_path / "damaged", dirs_exist_ok=True)
        path = tmp_path / "damaged" / name
        data = path.read_bytes()
        path.write_bytes(data.replace(b'"number": 1', b'"number": 2') + change)
        with pytest.raises(CorruptArtifactError):
            apply_deltas(nights[0], [str(tmp_path / "damaged")], str(tmp_path / "no"))
