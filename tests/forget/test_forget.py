"""After `forget` no byte below the root has the ids, and everything else goes on as before."""

from __future__ import annotations

import json
import random
import threading
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedmill.pipeline.errors import InputError, InUseError
from embedmill.pipeline.forget import forget
from embedmill.pipeline.forget.verification import Needles
from embedmill.pipeline.formats import FORMATS
from embedmill.pipeline.store.lease import drive
from embedmill.pipeline.store.run import find_run, open_run
from embedmill.pipeline.views.vectors import Vectors
from embedmill.schemas.index import IDS_FILE
from embedmill.schemas.stages import STAGES
from tests.forget.conftest import CANARY, Nights, canaries, small_run
from tests.support.commands import Cli

ITEM = "i5"


def found_in(root: Path, names: list[str]) -> list[str]:
    """Files that name one of some ids: in their bytes, or in decoded Parquet."""
    escaped = (json.dumps(name)[1:-1] for name in names)
    needles = [one.encode() for one in (*names, *escaped, *(name[-9:] for name in names))]
    found = []
    for path in root.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            if data[:4] == b"PAR1":
                data += repr(pq.read_table(path).to_pydict()).encode()
            if any(needle in data for needle in needles):
                found.append(str(path.relative_to(root)))
    return found


def check(nights: Nights, last: int, embedmill: Cli) -> None:
    """Forget all canaries and an item; then nothing is stale, and the next night leaves them out.

    Args:
        nights: finished ones, with exports.
        last: the number of the last one.
        embedmill: the command line.
    """
    root, names = nights.root, nights.canaries
    before = open_run(f"{root}/n{last}").artifact("export")
    users, items = (Vectors.of(before, side) for side in ("users", "items"))
    rows = users.vocabulary.rows_of(pa.array(names, pa.string()))
    assert (rows >= 0).all()
    item = items.vocabulary.row_of(ITEM)
    vectors = [*users.gather(rows), items.gather(np.array([item]))[0]]
    assert len(found_in(root, names)) > 15
    words = [word for name in names for word in ("--user", name)]
    code, out, err = embedmill(["forget", root, *words, "--user", "nobody-at-all", "--item", ITEM,
                                "--verify", "--json"])  # fmt: skip
    receipt = json.loads(out)
    assert (code, receipt["verification"]["found"], receipt["unknown"]) == (0, [], 1)
    assert "user 'nobody-at-all' is in no run" in err
    assert [run["run"] for run in receipt["runs"]] == [f"n{night}" for night in range(last + 1)]
    assert len(receipt["exports"]) == len(list((root / "exports").iterdir()))
    assert found_in(root, names) == []
    files = [path.read_bytes() for path in root.rglob("*") if path.is_file()]
    assert not any(vector.tobytes() in data for vector in vectors for data in files)
    assert not (root / "_forget" / "pending.json").exists()
    run = find_run(str(root))
    for stage in STAGES:
        assert list(run.artifact(stage).verify()) == []
    export = Vectors.of(run.artifact("export"), "users")
    assert not export.gather(rows).any()
    assert not export.live()[rows].any()
    assert ITEM not in run.artifact("index").read_table(IDS_FILE)["id"].to_pylist()
    with pytest.raises(InputError, match="no user"):
        export.vocabulary.row_of(names[0])

    contents = {stage: run.artifact(stage).manifest.content for stage in STAGES}
    again = nights.run(last)  # nothing is stale
    assert {stage: again.artifact(stage).manifest.content for stage in STAGES} == contents
    following = nights.run(last + 1)
    assert following.artifact("events").counters["forgotten"] >= len(names) * 5
    assert found_in(root, names) == []
    vocab = following.artifact("vocab")
    assert vocab.counters["users_forgotten"] == len(names)
    table = vocab.read_tables("users")
    assert [table["id"][int(row)].as_py() for row in rows] == [None] * len(names)
    ids = [one for one in table["id"].to_pylist() if one is not None]
    assert len(ids) == len(set(ids))


def test_nothing_is_left_of_forgotten_ids(tmp_path: Path, embedmill: Cli) -> None:
    nights = Nights(tmp_path / "runs", canaries(3), ("tsv", "jsonl"))
    runs = [nights.run(night) for night in range(2)]
    nights.add_exports(runs[-1], ("parquet", "npy", "word2vec", "pgvector"))
    check(nights, 1, embedmill)


@pytest.mark.exhaustive
def test_nothing_is_left_of_fifty_users_in_seven_runs(tmp_path: Path, embedmill: Cli) -> None:
    nights = Nights(tmp_path / "runs", canaries(50))
    runs = [nights.run(night) for night in range(7)]
    installed = [n for n, one in FORMATS.items() if not one.package or find_spec(one.package)]
    nights.add_exports(runs[-1], tuple(installed))
    nights.add_delta(runs[-1], runs[-2])
    check(nights, 6, embedmill)
    published = find_run(str(nights.root))
    then = published.artifact("train").manifest
    assert "train.start" in then.sources
    code, _, err = embedmill(["forget", nights.root, "--user", nights.canaries[0], "--retrain"])
    assert code == 0, err
    now = find_run(str(nights.root))
    assert now.storage.root == published.storage.root
    assert now.artifact("train").manifest.content != then.content
    assert now.artifact("train").manifest.sources == {}
    assert found_in(nights.root, nights.canaries) == []


def test_many_needles_are_found_as_few_are() -> None:
    draw = random.Random(1)
    needles = [draw.randbytes(draw.randrange(8, 40)) for _ in range(100)]
    data = draw.randbytes(1000)
    for number, needle in enumerate(needles[:30]):
        data = data[: number * 37] + needle + data[number * 37 :]
    few = {str(at) for at, needle in enumerate(needles) if needle in data}
    assert len(few) >= 20
    kinds = {needle: str(at) for at, needle in enumerate(needles)}
    assert Needles(kinds).within(data) == few
    assert Needles(kinds).within(data[:5]) == set()


def test_a_run_in_use_is_refused_and_nobody_is_harmless(tmp_path: Path) -> None:
    entered, done, root = threading.Event(), threading.Event(), str(tmp_path)
    run = small_run(root, "n0")

    def work() -> None:
        with drive(run.storage):
            entered.set()
            done.wait(30)

    worker = threading.Thread(target=work)
    worker.start()
    entered.wait(30)
    before = found_in(tmp_path, [CANARY])
    assert before
    with pytest.raises(InUseError):
        forget(root, {"users": [CANARY]})
    done.set()
    worker.join()
    assert found_in(tmp_path, [CANARY]) == before
    contents = {stage: run.manifest(stage) for stage in STAGES}
    result = forget(root, {"users": ["nobody"]}, verify=True)
    assert result.unknown == {"users": ["nobody"], "items": []}
    assert result.receipt.runs == []
    assert {stage: run.manifest(stage) for stage in STAGES} == contents
    with pytest.raises(InputError, match="there is no run"):
        forget(f"{root}/n0/events", {"users": [CANARY]})
