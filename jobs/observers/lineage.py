"""OpenLineage: which artifacts each stage has read and written, as events of its client.

A run of the command is a job whose run is the parent of those of its stages. An artifact is a
dataset whose version is its content hash.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from openlineage.client import OpenLineageClient
from openlineage.client.event_v2 import (
    InputDataset,
    Job,
    OutputDataset,
    RunEvent,
    RunState,
)
from openlineage.client.event_v2 import Run as LineageRun
from openlineage.client.facet_v2 import (
    dataset_version_dataset,
    error_message_run,
    job_type_job,
    output_statistics_output_dataset,
    parent_run,
    processing_engine_run,
)
from openlineage.client.uuid import generate_new_uuid

from embedmill import __version__
from embedmill.jobs.observers.observer import (
    Observer,
    RunEnd,
    StageEnd,
    StageFailure,
    StageStart,
    expanded,
    job_name,
)
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.run import Run
from embedmill.schemas.manifest import digest
from embedmill.schemas.stages import STAGES

__all__ = ["LineageObserver"]

_PRODUCER = f"https://pypi.org/project/embedmill/{__version__}"


class LineageObserver(Observer):
    """Sends START, COMPLETE and FAIL of each stage that is built, and of the run."""

    def __init__(self, run: Run, began: float) -> None:
        super().__init__(run, began)
        self._client = _client(run.config.observe.lineage, run.config.observe.timeout)
        self._job, self._id = job_name(run.config), str(generate_new_uuid())
        self._ids: dict[str, str] = {}
        self._send(RunState.START, None, began)

    def stage_started(self, start: StageStart) -> None:
        """See `Observer`."""
        self._ids[start.stage] = str(generate_new_uuid())
        inputs = [self._input(stage, "") for stage in STAGES[start.stage].inputs]
        self._send(RunState.START, start.stage, start.at, inputs=inputs)

    def stage_finished(self, end: StageEnd) -> None:
        """See `Observer`."""
        if end.built:
            self._send(
                RunState.COMPLETE,
                end.stage,
                end.at,
                inputs=self._inputs(end.artifact),
                outputs=[self._output(end.artifact)],
            )

    def stage_failed(self, failure: StageFailure) -> None:
        """See `Observer`."""
        state = RunState.FAIL if failure.failure.exit_code < 128 else RunState.ABORT
        self._send(state, failure.stage, failure.at, error=failure.failure.what)

    def run_ended(self, end: RunEnd) -> None:
        """See `Observer`."""
        failure = end.result.failure
        states = {"done": RunState.COMPLETE, "failed": RunState.FAIL, "stopped": RunState.ABORT}
        state = states[end.result.state]
        self._send(state, None, end.at, error=failure.what if failure else "")
        self._client.close()

    def _send(
        self,
        state: RunState,
        stage: str | None,
        at: float,
        *,
        inputs: Sequence[InputDataset] = (),
        outputs: Sequence[OutputDataset] = (),
        error: str = "",
    ) -> None:
        config = self.run.config
        facets: dict[str, Any] = {
            "processing_engine": processing_engine_run.ProcessingEngineRunFacet(
                version=__version__, name="embedmill"
            )
        }
        parent = (config.observe.namespace, self._job, self._id) if stage else _scheduler()
        if parent is not None:
            namespace, name, run_id = parent
            facets["parent"] = parent_run.ParentRunFacet(
                run=parent_run.Run(runId=run_id),
                job=parent_run.Job(namespace=namespace, name=name),
            )
        if error:
            facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(
                message=error, programmingLanguage="Python"
            )
        kind = job_type_job.JobTypeJobFacet(
            processingType="BATCH", integration="EMBEDMILL", jobType="STAGE" if stage else "RUN"
        )
        self._client.emit(
            RunEvent(
                eventType=state,
                eventTime=datetime.fromtimestamp(at, UTC).isoformat(),
                run=LineageRun(runId=self._ids[stage] if stage else self._id, facets=facets),
                job=Job(
                    namespace=config.observe.namespace,
                    name=f"{self._job}.{stage}" if stage else self._job,
                    facets={"jobType": kind},
                ),
                inputs=list(inputs),
                outputs=list(outputs),
                producer=_PRODUCER,
            )
        )

    def _inputs(self, artifact: Artifact) -> list[InputDataset]:
        """Raw logs, and the artifacts to the left."""
        manifest, raw = artifact.manifest, list[InputDataset]()
        if artifact.stage == "events":
            version = digest(manifest.sources)
            items = self.run.config.events.items
            paths = [*self.run.config.events.paths, *(items.paths if items else ())]
            raw = [InputDataset(*_name(path), facets=_version(version)) for path in paths]
        return raw + [self._input(entry.stage, entry.content) for entry in manifest.inputs]

    def _input(self, stage: str, content: str) -> InputDataset:
        return InputDataset(
            *_name(self.run.storage.url(stage)), facets=_version(content) if content else {}
        )

    def _output(self, artifact: Artifact) -> OutputDataset:
        files = artifact.manifest.files
        statistics = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
            rowCount=sum(file.rows or 0 for file in files),
            size=sum(file.bytes for file in files),
            fileCount=len(files),
        )
        return OutputDataset(
            *_name(self.run.storage.url(artifact.stage)),
            facets=_version(artifact.manifest.content),
            outputFacets={"outputStatistics": statistics},
        )


def _scheduler() -> tuple[str, str, str] | None:
    """Namespace, job and run of the task that started this process (OPENLINEAGE_PARENT_ID)."""
    given = os.environ.get("OPENLINEAGE_PARENT_ID", "")
    first, _, run_id = given.rpartition("/")
    namespace, _, name = first.rpartition("/")
    return (namespace, name, run_id) if namespace and name and run_id else None


def _version(content: str) -> dict[str, Any]:
    return {
        "version": dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=content),
    }


def _name(url: str) -> tuple[str, str]:
    """Namespace and name of a dataset (OpenLineage's documentation, "Naming conventions")."""
    parts = urlsplit(url)
    if parts.scheme in ("", "file"):
        return "file", str(Path(parts.path or url).absolute())
    return f"{parts.scheme}://{parts.hostname or ''}", parts.path.lstrip("/") or "/"


def _client(to: str, timeout: float) -> OpenLineageClient:
    """A client that writes to a file, sends to a URL, or does what its own config says."""
    if not to:
        return OpenLineageClient()
    target = expanded(to)
    if not target.startswith(("http://", "https://")):
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        transport = {"type": "file", "log_file_path": target, "append": True}
        return OpenLineageClient(config={"transport": transport})
    transport = {"type": "http", "url": target, "timeout": timeout, "retry": {"total": 1}}
    if os.environ.get("OPENLINEAGE_API_KEY"):
        transport["auth"] = {"type": "api_key", "apiKey": os.environ["OPENLINEAGE_API_KEY"]}
    return OpenLineageClient(config={"transport": transport})
