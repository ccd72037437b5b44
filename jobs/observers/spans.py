"""OpenTelemetry: a span for the run, and one in it for each stage that is built.

Spans go where the process's tracer provider sends them, such as one that `opentelemetry-instrument`
set; where there is none, by OTLP over HTTP to what OTEL_EXPORTER_OTLP_ENDPOINT says. A TRACEPARENT
in the environment, as schedulers set it, is the parent.
"""

from __future__ import annotations

import os
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from embedmill import __version__
from embedmill.jobs.observers.observer import (
    Observer,
    RunEnd,
    StageEnd,
    StageFailure,
    StageStart,
    job_name,
)
from embedmill.pipeline.store.run import Run

__all__ = ["SpanObserver"]


class SpanObserver(Observer):
    """Begins and ends spans, at the times of the stages."""

    def __init__(self, run: Run, began: float) -> None:
        super().__init__(run, began)
        tracer = _provider().get_tracer("embedmill", __version__)
        self._tracer, self._stages = tracer, dict[str, trace.Span]()
        carrier = {"traceparent": os.environ.get("TRACEPARENT", "")}
        attributes = {"embedmill.run": run.config.run.name, "embedmill.uri": run.storage.root}
        self._run_span = tracer.start_span(
            f"embedmill {job_name(run.config)}",
            TraceContextTextMapPropagator().extract(carrier),
            attributes=attributes,
            start_time=_ns(began),
        )

    def stage_started(self, start: StageStart) -> None:
        """See `Observer`."""
        self._stages[start.stage] = self._tracer.start_span(
            start.stage, trace.set_span_in_context(self._run_span), start_time=_ns(start.at)
        )

    def stage_finished(self, end: StageEnd) -> None:
        """See `Observer`."""
        span = self._stages.pop(end.stage, None)
        if span is not None:
            span.set_attribute("embedmill.content", end.artifact.manifest.content)
            for counter, value in end.artifact.counters.items():
                span.set_attribute(f"embedmill.rows.{counter}", value)
            span.set_status(trace.Status(trace.StatusCode.OK))
            span.end(_ns(end.at))

    def stage_failed(self, failure: StageFailure) -> None:
        """See `Observer`."""
        span = self._stages.pop(failure.stage, None)
        if span is not None:
            span.set_status(trace.Status(trace.StatusCode.ERROR, failure.failure.what))
            span.end(_ns(failure.at))

    def run_ended(self, end: RunEnd) -> None:
        """See `Observer`."""
        span, failure = self._run_span, end.result.failure
        span.set_attribute("embedmill.exit_code", end.result.exit_code)
        span.set_attribute("embedmill.published", end.result.published)
        code = trace.StatusCode.OK if failure is None else trace.StatusCode.ERROR
        span.set_status(trace.Status(code, failure.what if failure else None))
        span.end(_ns(end.at))


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)


class _Exporting(SpanProcessor):  # type: ignore[misc, unused-ignore]
    """Sends each span when it ends; raises where that fails, which the SDK's own would only log."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def on_end(self, span: ReadableSpan) -> None:
        """See `SpanProcessor`."""
        if self._exporter.export((span,)) is not SpanExportResult.SUCCESS:
            raise ConnectionError("spans cannot be sent; check OTEL_EXPORTER_OTLP_ENDPOINT")


def _provider() -> Any:
    """That of the process; where none was set, one of our own that exports by OTLP."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        return provider
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    # At the end of the process nothing is waited for: each span was sent when it ended.
    own = TracerProvider(
        resource=Resource.create({SERVICE_NAME: "embedmill"}), shutdown_on_exit=False
    )
    own.add_span_processor(_Exporting(OTLPSpanExporter()))
    return own
