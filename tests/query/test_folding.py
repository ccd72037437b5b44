"""Users and items of a file of events: vectors, recommendations, and every row accounted for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import embedmill
from embedmill.jobs.cli import app
from embedmill.pipeline.errors import InputError
from embedmill.pipeline.query.folding import fold
from embedmill.pipeline.query.lookup import recommend_from_events
from embedmill.pipeline.query.recommendations import RecommendOptions
from embedmill.pipeline.views.vectors import Vectors
from tests.support.runs import clusters, finished

WORLD = clusters(users=40, items=30)


def item_of(user: int) -> list[str]:
    """Items that a user of the planted world trains on."""
    return [WORLD.items[item] for u, item, *_ in WORLD.splits["train"] if u == user][:3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fold")
    train = {"objective": "item2vec"}
    model = {"objective": "item2vec", "similarity": "cosine"}
    contents = clusters(users=40, items=30)
    contents.model = model
    run = finished(contents, root, train=train, shards={"pairs": {}})
    lines = [f"new\t{item}\t1000" for item in item_of(0)]
    lines += ["new\tnowhere\t1000", "lost\tnowhere\t1000", "\ti1\t5", "u1\ti2\t7"]
    Path(run.storage.root, "asked.tsv").write_text(
        "user_id\titem_id\ttime\trating\n" + "".join(f"{line}\t4\n" for line in lines)
    )
    return Path(run.storage.root)


def test_a_new_user_gets_the_mean_of_its_items(folder: Path) -> None:
    run = embedmill.open(folder)
    vectors = run.fold(str(folder / "asked.tsv"))
    assert vectors.ids.to_pylist() == ["new", "u1"]
    items = Vectors.of(run._stored.artifact("export"), "items")
    rows = items.vocabulary.rows_of(pa.array(item_of(0)))
    mean = items.gather(rows).mean(0)
    assert vectors.to_numpy()[0] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-6)
    counts = vectors.counts
    assert (counts["rows_in"], counts["rejected"], counts["unknown"]) == (7, 1, 2)
    assert counts["without_events"] == 1
    assert vectors.left_out.to_pylist() == ["lost"]
    numbers = {"time": [1, 2], "rating": [3, 3]}
    frame = pa.table({"user_id": ["x", "x"], "item_id": item_of(0)[:2], **numbers})
    assert run.fold(frame).to_arrow()["count"].to_pylist() == [2]
    frame = pa.table({"user_id": ["u0", "u1"], "item_id": ["n", "n"], **numbers})
    by_item = run.fold(frame, "items")
    users = Vectors.of(run._stored.artifact("export"), "users")
    both = users.gather(users.vocabulary.rows_of(pa.array(["u0", "u1"]))).mean(0)
    assert by_item.to_numpy()[0] == pytest.approx(both / np.linalg.norm(both), abs=1e-6)


def test_who_is_in_no_run_gets_recommendations(folder: Path) -> None:
    run = embedmill.open(folder)._stored
    asked = str(folder / "asked.tsv")
    hits = recommend_from_events(run, asked, "new", RecommendOptions(4))
    assert len(hits) == 4
    assert not {hit.item for hit in hits} & set(item_of(0))
    hits = recommend_from_events(run, asked, "new", RecommendOptions(3, exclude_seen=False))
    assert {hit.item for hit in hits} & set(item_of(0))
    with pytest.raises(InputError, match='no event of user "lost"'):
        recommend_from_events(run, asked, "lost", RecommendOptions())
    with pytest.raises(InputError, match="no event has an item that the run has"):
        fold(run, pa.table({"user_id": ["x"], "item_id": ["y"], "time": [1], "rating": [3]}))


def test_the_commands_write_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked, output = str(folder / "asked.tsv"), str(folder / "folded.parquet")
    app(["fold", str(folder), "--events", asked, "--output", output, "--json"],
        standalone_mode=False)  # fmt: skip
    said = json.loads(capsys.readouterr().out)
    table = pq.read_table(output)
    assert table["id"].to_pylist() == ["new", "u1"]
    assert said["ids"] == 2
    app(["recommend", str(folder), "--events", asked, "--output", output, "-k", "2", "--json"],
        standalone_mode=False)  # fmt: skip
    said = json.loads(capsys.readouterr().out)
    assert (said["users_in"], said["answered"], said["no_known_item"]) == (3, 2, 1)
    assert pq.read_table(output)["user"].to_pylist() == ["new", "new", "u1", "u1"]
