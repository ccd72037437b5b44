"""Quality beside an earlier run: the same users, events and candidates, other vectors."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from embedmill.jobs import evaluate as evaluate_job
from embedmill.jobs import export as export_job
from embedmill.jobs import index as index_job
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.run import save_config
from embedmill.pipeline.views.evaluate import Evaluation
from tests.support.runs import StoredRun, clusters

WORLD = clusters(users=40, items=30, dim=8)


def night(
    root: Path, name: str, contents: StoredRun, align: str = "", least: float = 0
) -> Evaluation:
    gates = {"least": {"over_earlier.recall@5": least}} if align else {}
    run = contents.store(
        root,
        run={"name": name, "partitions": 4},
        export={"align": align},
        index={"kind": "flat", "queries": 20},
        evaluate={"ks": [1, 5], "gates": gates},
    )
    save_config(run)
    for stage, job in (("export", export_job), ("index", index_job), ("evaluate", evaluate_job)):
        sources = export_job.sources(run) if stage == "export" else None
        job.build(run, run.writer(stage, sources), Quiet())
    return Evaluation(run.artifact("evaluate"))


def test_a_night_that_got_worse_fails_its_gate(tmp_path: Path) -> None:
    draw = np.random.default_rng(3)
    noise = draw.normal(size=WORLD.item_ND.shape).astype(np.float32)
    first = night(tmp_path, "a", WORLD)
    assert "earlier.recall@5" not in first.metrics
    same = night(tmp_path, "b", WORLD, "a", 1.0)
    assert same.metrics["over_earlier.recall@5"] == 1
    assert same.metrics["earlier.recall@5"] == pytest.approx(first.metrics["recall@5"])
    assert [gate.passed for gate in same.gates] == [True]
    # The items are as good as random now, so the earlier vectors find more of tonight's events.
    worse = night(tmp_path, "c", dataclasses.replace(WORLD, item_ND=noise), "a", 0.9)
    ratio = worse.metrics["over_earlier.recall@5"]
    assert ratio == pytest.approx(worse.metrics["recall@5"] / first.metrics["recall@5"])
    assert ratio < 0.9
    assert [gate.passed for gate in worse.gates] == [False]
