"""What depends on the machine and the moment: times, sizes, latencies, versions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from embedmill.pipeline.config import Config, to_toml
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.views.index import StoredIndex
from embedmill.pipeline.views.train import Training
from embedmill.schemas.index import IndexLatency
from embedmill.schemas.stages import STAGES

__all__ = ["Provenance", "StageCost", "Timings", "TrainingTime", "collect_timings", "provenance"]

_PARTS = "seconds."  # prefix of the training log's times by part


@dataclass(frozen=True)
class StageCost:
    """What a stage took and wrote; `content` is its content hash, `measured` as in its manifest."""

    stage: str
    seconds: float
    bytes: int
    files: int
    content: str
    measured: Mapping[str, float]


@dataclass(frozen=True)
class TrainingTime:
    """Where the time of training went.

    `parts` are seconds by part, the longest first; `pairs` were trained on in the `seconds` that
    their steps took; `workers` are those of each start.
    """

    parts: Mapping[str, float]
    pairs: int
    seconds: float
    workers: list[int]


@dataclass(frozen=True)
class Provenance:
    """What made a page: versions by software, the config as TOML, when it was made (ISO 8601)."""

    software: Mapping[str, str]
    config: str
    created: str


@dataclass(frozen=True)
class Timings:
    """Costs of the stages in order, and of training and of searching where they were measured."""

    stages: list[StageCost]
    training: TrainingTime | None
    latency: IndexLatency | None
    provenance: Provenance

    @property
    def seconds(self) -> float:
        """Of all stages."""
        return sum(stage.seconds for stage in self.stages)


def collect_timings(run: Run) -> Timings:
    """Times and sizes of a run whose stages before `report` have finished.

    Raises:
        MissingArtifactError: a stage has not finished.
    """
    artifacts = [run.artifact(stage) for stage in STAGES if stage != "report"]
    created = run.artifact("evaluate").manifest.created
    return Timings(
        [_cost(artifact) for artifact in artifacts],
        _training_time(Training(run.artifact("train"))),
        StoredIndex(run.artifact("index")).latency,
        provenance(artifacts, run.config, created),
    )


def provenance(artifacts: Iterable[Artifact], config: Config, created: str) -> Provenance:
    """What made a page about these artifacts.

    Args:
        artifacts: stages in order; of a software the version of the last one is shown.
        config: of the run.
        created: when what the page shows was made.
    """
    software: dict[str, str] = {}
    for artifact in artifacts:
        software |= artifact.manifest.software
    return Provenance(dict(sorted(software.items())), to_toml(config), created)


def _cost(artifact: Artifact) -> StageCost:
    manifest = artifact.manifest
    return StageCost(
        stage=artifact.stage,
        seconds=manifest.seconds,
        bytes=sum(file.bytes for file in manifest.files),
        files=len(manifest.files),
        content=manifest.content,
        measured=manifest.measured,
    )


def _training_time(training: Training) -> TrainingTime | None:
    """From the training's log; None where no times are in it."""
    lines = training.log()
    names = {key for line in lines for key in line if key.startswith(_PARTS)}
    parts = {n.removeprefix(_PARTS): sum(line.get(n, 0.0) for line in lines) for n in names}
    if not sum(parts.values()):
        return None
    steps = [line for line in lines if line["kind"] == "steps"]
    return TrainingTime(
        parts=dict(sorted(parts.items(), key=lambda pair: (-pair[1], pair[0]))),
        pairs=sum(line["pairs"] for line in steps),
        seconds=sum(line["seconds"] for line in steps),
        workers=[line["workers"] for line in lines if line["kind"] == "start"],
    )
