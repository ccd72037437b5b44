"""Two nights of one log: the second run keeps the rows of the first, up to the page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from embedmill.jobs.all import run_line
from embedmill.pipeline.config import parse
from embedmill.pipeline.query import lookup
from embedmill.pipeline.query.metrics import metrics_of
from embedmill.pipeline.store.run import Run, published
from embedmill.pipeline.terminal import Terminal
from embedmill.pipeline.views.evaluate import Evaluation
from embedmill.pipeline.views.report import Report
from embedmill.pipeline.views.vectors import Vectors, space_of
from embedmill.schemas.stages import STAGES
from tests.support.commands import Cli
from tests.support.worlds import PlantedWorld, config_tree, laid

WORLD = PlantedWorld()
GONE = {"i0", "i1", "i2", "i3", "u5"}


def night(folder: Path, name: str, events: list[tuple[str, str, int, float]]) -> Run:
    log = folder / f"{name}.tsv"
    lines = ["user_id\titem_id\ttime\trating", *("\t".join(map(str, e)) for e in events)]
    log.write_text("\n".join(lines) + "\n", encoding="utf-8")
    vocab = {"previous": "published", "min_item_count": 3, "oov_rows": 2, "retire_after": 0}
    gates = {"gates": {"least": {"drift.jaccard@10": 0.1}}}
    tree = laid(
        config_tree(folder / "runs", log, name), vocab=vocab, train={"start": "published"},
        evaluate=gates,
    )  # fmt: skip
    run = Run(parse(tree))
    run_line(run, terminal=Terminal(quiet=True))
    return run


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """Finished runs; read only. Items i0 to i3 and user u5 have no events in the second night,
    i40 is new, and i41 too rare for a row of its own."""
    folder, events = tmp_path_factory.mktemp("nights"), WORLD.events()
    first = night(folder, "monday", events)
    later = [e for e in events if not {e[0], e[1]} & GONE]
    later += [(f"u{n}", "i40", 1_600_000_000 + n, 5.0) for n in range(0, 40, 4)]
    later += [("u8", "i41", 1_500_000_000, 5.0)]
    return first, night(folder, "tuesday", later)


def rows(run: Run, side: str) -> dict[str, tuple[int, bool]]:
    table = run.artifact("export").read_tables(side)
    columns = (table[c].to_pylist() for c in ("id", "row", "live"))
    return {i: (row, live) for i, row, live in zip(*columns, strict=True) if i is not None}


def test_exported_rows_are_those_of_the_night_before(nights: tuple[Run, Run]) -> None:
    for side in ("users", "items"):
        before, after = (rows(run, side) for run in nights)
        assert {i: row for i, (row, _) in before.items()}.items() <= {
            i: row for i, (row, _) in after.items()
        }.items()
        assert {i for i, (_, live) in after.items() if not live} == GONE & before.keys()
        assert all(live for _, live in before.values())
    assert rows(nights[1], "items")["i40"] == (42, True)  # 40 items and two shared rows before
    assert "i41" not in rows(nights[1], "items")


def test_only_live_items_are_indexed_and_recommended(nights: tuple[Run, Run]) -> None:
    run = nights[1]
    counters = run.artifact("index").counters
    assert (counters["indexed"], counters["not_live"]) == (37, 6)
    answers = {hit.item for hit in lookup.recommend(run, "u8", 100, exclude_seen=False)}
    assert answers == {i for i, (_, live) in rows(run, "items").items() if live}
    near = {hit.item for hit in lookup.neighbors(run, "i40", 100)}
    assert near == answers - {"i40"}
    page = Report(run.artifact("report")).data
    assert {point.id for point in page.map.points} == answers
    assert not {one.id for one in page.neighbours.items} & GONE
    assert Vectors.of(run.artifact("export"), "items").count == 43


def test_the_second_night_is_published_and_remembers_the_first(nights: tuple[Run, Run]) -> None:
    root = nights[1].config.run.root
    pointer = published(root)
    assert pointer is not None
    assert (pointer.run, pointer.base_run) == ("tuesday", f"{root}/monday")


def test_the_second_night_continues_the_vectors_of_the_first(
    nights: tuple[Run, Run], embedmill: Cli
) -> None:
    epochs = [run.artifact("train").counters["epochs"] for run in nights]
    assert epochs == [3, 1]  # a quarter
    spaces = [space_of(run.artifact("export")) for run in nights]
    assert spaces[0] == spaces[1]
    metrics, first = (metrics_of(run) for run in reversed(nights))
    assert "drift.jaccard@10" not in first
    assert float(metrics["drift.jaccard@10"]) > 0.3
    assert float(metrics["drift.distance"]) < 0.5
    assert [gate.metric for gate in Evaluation(nights[1].artifact("evaluate")).gates] == [
        "drift.jaccard@10"
    ]
    assert "Compared with the vectors of the earlier run" in page_of(nights[1])
    assert "Compared with the vectors of the earlier run" not in page_of(nights[0])
    _, out, _ = embedmill(["diff", *(run.storage.root for run in nights)])
    assert "vectors of 36 items in both runs" in out
    assert "distance moved: mean" in out


def page_of(run: Run) -> str:
    return run.artifact("report").read("index.html").decode()


def test_both_nights_are_up_to_date_afterwards(
    nights: tuple[Run, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    for run in nights:
        run_line(run)
        assert capsys.readouterr().out.count("up to date") == len(STAGES)


def test_the_published_run_is_rebuilt_on_the_run_that_it_continued(
    nights: tuple[Run, Run], tmp_path: Path
) -> None:
    shutil.copytree(nights[1].config.run.root, tmp_path / "runs")
    # Where a run is does not count, but the pointer knows where the one before was.
    tree = nights[1].config.model_dump()
    tree["run"]["root"] = str(tmp_path / "runs")
    run, terminal = Run(parse(tree)), Terminal(quiet=True)
    run_line(run, first="vocab", last="vocab", rebuild=True, terminal=terminal)
    expected = nights[1].artifact("vocab").manifest
    found = run.artifact("vocab").manifest
    assert (found.content, found.fingerprint) == (expected.content, expected.fingerprint)


def test_a_retired_user_is_told_so(nights: tuple[Run, Run], embedmill: Cli) -> None:
    code, _, err = embedmill(["recommend", nights[1].storage.root, "--user", "u5"])
    assert code == 3
    assert 'user "u5" is retired: its row is kept, but this run has no events' in err
    code, out, _ = embedmill(["recommend", nights[0].storage.root, "--user", "u5"])
    assert code == 0
    assert out


def test_diff(nights: tuple[Run, Run], embedmill: Cli) -> None:
    folders = [run.storage.root for run in nights]
    code, out, err = embedmill(["diff", *folders, "--json"])
    assert (code, err) == (0, "")
    said = json.loads(out)
    assert {k: said["items"][k] for k in ("before", "after", "came", "went", "retired")} == {
        "before": 40, "after": 37, "came": 1, "went": 4, "retired": 4,
    }  # fmt: skip
    assert said["items"]["examples"]["came"] == [{"id": "i40", "before": 0, "after": 10}]
    assert (said["users"]["went"], said["users"]["stayed"], said["users"]["moved"]) == (1, 59, 0)
    code, out, _ = embedmill(["diff", *folders])
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "items that went" in out
    assert "u5" in out


def test_diff_with_a_run_that_is_not_there(nights: tuple[Run, Run], embedmill: Cli) -> None:
    code, _, err = embedmill(["diff", nights[0].storage.root, "nowhere"])
    assert code == 4
    assert "nowhere: no run here" in err
