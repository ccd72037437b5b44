"""Vectors in the space of an earlier run: rotated back, inner products kept, drift measured.

Legend: N rows, D coordinates.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedmill.jobs import export as export_job
from embedmill.pipeline.errors import ConfigError
from embedmill.pipeline.evaluate.drift import drift_metrics, measure_drift
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.run import Run, save_config
from embedmill.pipeline.views.vectors import Vectors, space_of, spec_of
from tests.support.runs import StoredRun, clusters

WORLD = clusters(users=40, items=30, dim=8)
TURN_DD = np.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))[0]


def exported(contents: StoredRun, root: Path, name: str, **export: Any) -> Run:
    run = contents.store(root, run={"name": name, "partitions": 4}, export=export)
    save_config(run)
    export_job.build(run, run.writer("export", export_job.sources(run)), Quiet())
    return run


def vectors(run: Run, side: str) -> np.ndarray[Any, Any]:
    return Vectors.of(run.artifact("export"), side).load()


def turned(noise: float = 0.0, **model: Any) -> StoredRun:
    """The world's vectors in other axes, one more user, and items in another order."""
    draw, order = np.random.default_rng(2), np.random.default_rng(3).permutation(30)
    user_ND = np.concatenate((WORLD.user_ND, WORLD.user_ND[:1])) @ TURN_DD
    item_ND = WORLD.item_ND[order] @ TURN_DD
    item_ND = item_ND + noise * draw.normal(size=item_ND.shape)
    place = np.argsort(order)
    splits = {k: [(u, int(place[i]), w) for u, i, w in v] for k, v in WORLD.splits.items()}
    splits["train"] = [*splits["train"], (40, 0, 1.0)]
    return dataclasses.replace(
        WORLD, users=[*WORLD.users, "new"], items=[WORLD.items[n] for n in order], splits=splits,
        user_ND=user_ND.astype(np.float32), item_ND=item_ND.astype(np.float32), model=model,
    )  # fmt: skip


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_a_rotation_is_undone_and_scores_stay(similarity: str, tmp_path: Path) -> None:
    model = {"similarity": similarity}
    first = exported(dataclasses.replace(WORLD, model=model), tmp_path, "a")
    plain = exported(turned(**model), tmp_path, "plain")
    run = exported(turned(**model), tmp_path, "b", align="a")
    ids = Vectors.of(run.artifact("export"), "items").vocabulary.ids(np.arange(30))
    place = [int(WORLD.items.index(one)) for one in ids]
    np.testing.assert_allclose(vectors(run, "items"), vectors(first, "items")[place], atol=1e-5)
    np.testing.assert_allclose(vectors(run, "users")[:40], vectors(first, "users"), atol=1e-5)
    scores = [vectors(one, "users") @ vectors(one, "items").T for one in (run, plain)]
    np.testing.assert_allclose(*scores, atol=1e-5)
    space = spec_of(run.artifact("export")).space
    assert space is not None
    assert (space.aligned, space.ids) == (True, 70)
    assert space.residual < 1e-3
    assert space_of(run.artifact("export")) == space_of(first.artifact("export"))
    assert space_of(plain.artifact("export")) != space_of(first.artifact("export"))
    drift = drift_metrics(measure_drift(run.artifact("export"), first.artifact("export"), 1))
    assert drift["drift.jaccard@10"] == pytest.approx(1, abs=0.05)
    assert drift["drift.users_overlap@10"] == pytest.approx(1, abs=0.05)
    assert drift["drift.moved"] == 0
    assert drift["drift.distance"] < 1e-4
    # Compared across spaces, only neighbours count.
    unlike = measure_drift(plain.artifact("export"), first.artifact("export"), 1)
    assert (unlike.one_space, unlike.distance) == (False, None)
    assert unlike.jaccard == pytest.approx(drift["drift.jaccard@10"], abs=0.05)


def test_what_cannot_be_aligned_has_a_space_of_its_own(tmp_path: Path) -> None:
    first = exported(WORLD, tmp_path, "a")
    far = exported(turned(noise=5.0), tmp_path, "far", align="a")
    space = spec_of(far.artifact("export")).space
    assert space is not None
    assert not space.aligned
    assert "more than 0.5" in space.reason
    assert space.residual > 0.5
    assert space_of(far.artifact("export")) != space_of(first.artifact("export"))
    others = dataclasses.replace(
        WORLD, users=[f"x{n}" for n in range(40)], items=[f"y{n}" for n in range(30)]
    )
    nobody = spec_of(exported(others, tmp_path, "other", align="a").artifact("export")).space
    assert nobody is not None
    assert nobody.reason == "no id is in both runs"
    with pytest.raises(ConfigError, match=r"vectors cannot be aligned to .*nowhere: no run here"):
        exported(WORLD, tmp_path, "c", align="nowhere")
    none = exported(WORLD, tmp_path, "d", align="published")
    assert spec_of(none.artifact("export")).space is None
