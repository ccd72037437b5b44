"""Prometheus: figures of the last run, as a file for the node exporter or pushed to a gateway.

All have the label `job`, the run's name without what changes every night.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile
from prometheus_client.exposition import basic_auth_handler, default_handler, pushadd_to_gateway
from prometheus_client.parser import text_string_to_metric_families

from embedmill.jobs.observers.observer import Observer, RunEnd, StageEnd, expanded, job_name
from embedmill.pipeline.errors import ConfigError
from embedmill.pipeline.store.run import Run
from embedmill.schemas.stages import STAGES

__all__ = ["MetricsObserver"]

_LAST_SUCCESS = "embedmill_last_success_timestamp_seconds"
_UNSAFE = re.compile(r"[^A-Za-z0-9._=-]")


class MetricsObserver(Observer):
    """Keeps the figures, and writes or pushes them when the run has ended."""

    def __init__(self, run: Run, began: float) -> None:
        super().__init__(run, began)
        if not run.config.observe.metrics:
            raise ConfigError("observe.metrics is not set: a folder, or a URL of a Pushgateway")
        self._to, self._job = expanded(run.config.observe.metrics), job_name(run.config)
        self._ends: list[StageEnd] = []

    def stage_finished(self, end: StageEnd) -> None:
        """See `Observer`."""
        self._ends.append(end)

    def run_ended(self, end: RunEnd) -> None:
        """See `Observer`."""
        is_gateway = self._to.startswith(("http://", "https://"))
        path = Path(self._to) / f"embedmill-{_UNSAFE.sub('_', self._job)}.prom"
        # The group of a gateway has the label; in a file each figure has it.
        figures = _Figures({} if is_gateway else {"job": self._job})
        for stage_end in self._all_stages(end.at):
            figures.of_stage(stage_end)
        figures.of_run(end)
        if is_gateway:
            self._push(figures.registry)
            return
        if end.result.failure is not None and path.exists():
            figures.keep_last_success(path.read_text(encoding="utf-8"))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_to_textfile(str(path), figures.registry)

    def _all_stages(self, at: float) -> Iterator[StageEnd]:
        """Those of this command, and what others have finished: a command may be of one stage."""
        yield from self._ends
        seen = {end.stage for end in self._ends}
        for stage in STAGES:
            artifact = None if stage in seen else self.run.find(stage)
            if artifact is not None:
                yield StageEnd(artifact, False, at)

    def _push(self, registry: CollectorRegistry) -> None:
        """Replace figures of the same names in the job's group: others stay as they are."""
        parts = urlsplit(self._to)
        name, password = unquote(parts.username or ""), unquote(parts.password or "")

        def send(**given: Any) -> Any:
            if name:
                return basic_auth_handler(**given, username=name, password=password)
            return default_handler(**given)

        pushadd_to_gateway(
            urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")),
            job=self._job,
            registry=registry,
            timeout=self.run.config.observe.timeout,
            handler=send,
        )


class _Figures:
    """The figures, with labels that all of them have."""

    def __init__(self, labels: dict[str, str]) -> None:
        self.registry = CollectorRegistry()
        self._labels = labels
        self._gauges: dict[str, Gauge] = {}

    def of_stage(self, end: StageEnd) -> None:
        """Those of a stage."""
        manifest, stage = end.artifact.manifest, end.stage
        self._set("embedmill_stage_seconds", "time that the stage took when it was built",
                  manifest.seconds, stage=stage)  # fmt: skip
        self._set("embedmill_stage_built", "1: built by the last run, 0: up to date before it",
                  end.built, stage=stage)  # fmt: skip
        self._set("embedmill_stage_bytes", "size of the artifact",
                  sum(file.bytes for file in manifest.files), stage=stage)  # fmt: skip
        for counter, value in end.artifact.counters.items():
            self._set("embedmill_stage_rows", "rows by what became of them",
                      value, stage=stage, counter=counter)  # fmt: skip

    def of_run(self, end: RunEnd) -> None:
        """Those of the run: its end, metrics and gates."""
        result = end.result
        self._set("embedmill_last_run_timestamp_seconds", "end of the last run", end.at)
        self._set("embedmill_last_run_exit_code", "its exit code", result.exit_code)
        self._set("embedmill_last_run_seconds", "its duration", result.seconds)
        self._set("embedmill_last_run_published", "1: it is the published one", result.published)
        if result.failure is None:
            self._set(_LAST_SUCCESS, "end of the last run without a failure", end.at)
        for name, value in result.metrics.items():
            self._set("embedmill_metric", "metrics of stage evaluate", value, metric=name)
        for gate in result.gates:
            self._set("embedmill_gate_passed", "1: the gate passed", gate.passed,
                      metric=gate.metric, gate=gate.gate)  # fmt: skip

    def keep_last_success(self, text: str) -> None:
        """Take over when the last run succeeded, from the file of an earlier run."""
        for family in text_string_to_metric_families(text):
            if family.name == _LAST_SUCCESS:
                for sample in family.samples:
                    self._set(_LAST_SUCCESS, family.documentation, sample.value)

    def _set(self, name: str, meaning: str, value: float, **labels: str) -> None:
        labels = {**self._labels, **labels}
        if name not in self._gauges:
            self._gauges[name] = Gauge(name, meaning, list(labels), registry=self.registry)
        gauge = self._gauges[name]
        (gauge.labels(**labels) if labels else gauge).set(float(value))
