"""What depends on the machine and the moment: times, sizes, latencies, versions."""

from __future__ import annotations

import json
from typing import Any

from embedmill.pipeline.config import to_toml
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.run import Run
from embedmill.schemas.index import LATENCY
from embedmill.schemas.stages import STAGES
from embedmill.schemas.train import LOG

__all__ = ["collect_timings"]

_PARTS = "seconds."  # prefix of the training log's times by part


def collect_timings(run: Run) -> dict[str, Any]:
    """Times and sizes of a run whose stages before `report` have finished.

    Returns:
        `stages` in order, each with `seconds`, `bytes`, `files`, hash of its `content` and what
        was `measured`; `training` (see `_training`); versions by `software`; the index's
        `latency`; the `config` as TOML; when it was `created`.

    Raises:
        MissingArtifactError: a stage has not finished.
    """
    stages: list[dict[str, Any]] = []
    software: dict[str, str] = {}
    for stage in (stage for stage in STAGES if stage != "report"):
        manifest = run.artifact(stage).manifest
        stages.append(
            {
                "stage": stage,
                "seconds": manifest.seconds,
                "bytes": sum(f.bytes for f in manifest.files),
                "files": len(manifest.files),
                "content": manifest.content,
                "measured": manifest.measured,
            }
        )
        software |= manifest.software
    index = run.artifact("index")
    return {
        "stages": stages,
        "training": _training(run.artifact("train")),
        "software": dict(sorted(software.items())),
        "latency": index.read_json(LATENCY).as_json() if index.has(LATENCY.path) else {},
        "config": to_toml(run.config),
        "created": run.artifact("evaluate").manifest.created,
    }


def _training(train: Artifact) -> dict[str, Any]:
    """How training spent its time, from its log; empty where it has none.

    Returns:
        `spent`: seconds by part, the longest first; `pairs` trained on and the `seconds` that
        their steps took; `workers` of each start.
    """
    if not train.has(LOG):
        return {}
    lines = [json.loads(line) for line in train.read(LOG).splitlines()]
    parts = {key for line in lines for key in line if key.startswith(_PARTS)}
    spent = {p.removeprefix(_PARTS): sum(line.get(p, 0.0) for line in lines) for p in parts}
    steps = [line for line in lines if line["kind"] == "steps"]
    return {
        "spent": dict(sorted(spent.items(), key=lambda pair: (-pair[1], pair[0]))),
        "pairs": sum(line["pairs"] for line in steps),
        "seconds": sum(line["seconds"] for line in steps),
        "workers": [line["workers"] for line in lines if line["kind"] == "start"],
    }
