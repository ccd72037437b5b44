"""The runs below a root, as `embedmill list` shows them."""

from __future__ import annotations

from embedmill.pipeline.errors import ArtifactError, ConfigError, MissingArtifactError
from embedmill.pipeline.store.publication import date_of
from embedmill.pipeline.store.run import Run, open_run, published
from embedmill.pipeline.store.run_state import read_state
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.views.evaluate import Evaluation
from embedmill.schemas.run import CONFIG, Published, RunSummary
from embedmill.schemas.stages import STAGES

__all__ = ["list_runs"]


def list_runs(root: str) -> list[RunSummary]:
    """All runs below a root: those for the latest dates first, then by when they finished.

    A run that cannot be read has the state "unreadable".

    Raises:
        MissingArtifactError: there is no run.
        CorruptArtifactError: `published.json` is damaged.
    """
    storage, pointer = Storage(root.rstrip("/") or "/"), published(root)
    names = [name for name in storage.folders() if storage.exists(f"{name}/{CONFIG}")]
    if not names:
        raise MissingArtifactError(
            "no runs here", where=root, todo="Give run.root of the config, such as runs"
        )
    name = pointer.run if pointer else ""
    runs = [_summary(storage.url(one), pointer if one == name else None) for one in names]
    return sorted(runs, key=lambda run: (run.date, run.finished), reverse=True)


def _summary(url: str, pointer: Published | None) -> RunSummary:
    """A run in one line; `pointer` names it."""
    try:
        return _read(open_run(url), pointer)
    except (ArtifactError, ConfigError):
        return RunSummary(
            run=url.rpartition("/")[2],
            uri=url,
            date="",
            state="unreadable",
            stages=0,
            finished="",
            published=False,
            failed_gates=[],
            metrics={},
        )


def _read(run: Run, pointer: Published | None) -> RunSummary:
    artifacts = [artifact for stage in STAGES if (artifact := run.find(stage)) is not None]
    driver = read_state(run)
    finished = "done" if len(artifacts) == len(STAGES) else "unfinished"
    evaluations = [Evaluation(one) for one in artifacts if one.stage == "evaluate" and one.readable]
    return RunSummary(
        run=run.config.run.name,
        uri=run.storage.root,
        date=date_of(run.config),
        state=driver.state if driver and driver.state != "done" else finished,
        stages=len(artifacts),
        finished=max((artifact.manifest.created for artifact in artifacts), default=""),
        published=_is_pointed_at(run, pointer),
        failed_gates=[g.metric for e in evaluations for g in e.gates if not g.passed],
        metrics={name: value for e in evaluations for name, value in e.metrics.items()},
    )


def _is_pointed_at(run: Run, pointer: Published | None) -> bool:
    """Whether readers of the root get this run: it was not built anew since it was published."""
    index = run.manifest("index")
    return bool(pointer and index and index.content == pointer.stages.get("index"))
