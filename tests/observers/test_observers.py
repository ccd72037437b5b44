"""Observers get what happens, and nothing that they do changes a stage or an exit code."""

from __future__ import annotations

import contextlib
import gzip
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from embedmill.jobs.launch import Job, main_of
from embedmill.jobs.observers import RunEnd
from embedmill.jobs.observers.prometheus import MetricsObserver
from embedmill.jobs.observers.watch import ObserverKind
from embedmill.jobs.run_record import RunRecord
from embedmill.pipeline.config import to_toml
from embedmill.pipeline.errors import TrainingError
from embedmill.pipeline.log import Progress, set_log_format
from embedmill.pipeline.store.artifact_writer import Writer
from embedmill.pipeline.store.run import Run
from tests.observers.servers import gone, hanging, recording
from tests.support.runs import clusters, finished
from tests.support.worlds import config

COUNTERS = {"rows_in": 5, "events": 0, "rejected": 0, "merged": 5}
Ended = tuple[int, dict[str, Any], str]


def build(_run: Run, out: Writer, progress: Progress) -> None:
    progress.update(1, 2, "rows")
    progress.note("halfway")
    out.commit(COUNTERS)


def fail(_run: Run, _out: Writer, _progress: Progress) -> None:
    raise TrainingError("loss is NaN", where="epoch 1")


@pytest.fixture(autouse=True)
def text_again() -> Iterator[None]:
    yield
    set_log_format("text")


@pytest.fixture
def ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a stage of one command line: its exit code, its result, and what it said on stderr."""

    def call(job: Any = build, words: tuple[str, ...] = (), **sections: Any) -> Ended:
        file = tmp_path / "run.toml"
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
        sections["run"] = {"name": "plays-2026-11-22", **sections.pop("run", {})}
        text = to_toml(config(tmp_path / "runs", "log.tsv", **sections))
        file.write_text(text, encoding="utf-8")
        code = main_of(Job("events", job), [str(file), *words])
        said = capsys.readouterr()
        return code, json.loads(said.out.splitlines()[-1]), said.err

    return call


def observe(*names: str, **keys: Any) -> dict[str, Any]:
    return {"observers": list(names), "timeout": 20, **keys}


# JSON


def test_each_line_of_a_json_log_is_an_event(ended: Any) -> None:
    code, result, err = ended(words=("--log", "json"))
    lines = [json.loads(line) for line in err.splitlines()]
    assert (code, result["state"]) == (0, "done"), err
    assert [line["event"] for line in lines] == ["started", "note", "built", "done"]
    assert all(line["run"] == "plays-2026-11-22" and line["time"].endswith("+00:00")
               for line in lines)  # fmt: skip
    assert [line["stage"] for line in lines] == ["events", "events", "events", None]
    assert lines[1]["text"] == "halfway"
    assert lines[2]["counters"] == COUNTERS
    assert lines[2]["content"] == result["stages"][0]["content"]
    code, _, err = ended(fail, words=("--log", "json"))
    lines = [json.loads(line) for line in err.splitlines()]
    assert [line["event"] for line in lines] == ["started", "failed", "failed"]
    assert (code, lines[2]["exit_code"], lines[2]["what"]) == (5, 5, "loss is NaN")


def test_an_observer_that_cannot_even_begin(ended: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(_run: Run) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("embedmill.jobs.run_record.Observers", no_thread)
    code, _, err = ended(fail, run={"on_failure": "false"}, observe=observe("prometheus"))
    assert code == 5
    assert "observers do not begin: can't start new thread" in err
    assert "run.on_failure: false: ended with exit code 1" in err


# OpenLineage


def test_lineage_has_inputs_outputs_and_versions(ended: Any, tmp_path: Path) -> None:
    path = tmp_path / "lineage" / "events.jsonl"
    sections = {"observe": observe("openlineage", lineage=str(path))}
    _, result, err = ended(**sections)
    assert "observer" not in err
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(e["eventType"], e["job"]["name"]) for e in events] == [
        ("START", "plays-2026-11-22"),
        ("START", "plays-2026-11-22.events"),
        ("COMPLETE", "plays-2026-11-22.events"),
        ("COMPLETE", "plays-2026-11-22"),
    ]
    done = events[2]
    assert done["run"]["runId"] == events[1]["run"]["runId"]
    assert done["run"]["facets"]["parent"]["run"]["runId"] == events[0]["run"]["runId"]
    (output,) = done["outputs"]
    assert output["facets"]["version"]["datasetVersion"] == result["stages"][0]["content"]
    assert (output["namespace"], output["name"]) == ("file", result["stages"][0]["uri"])
    assert done["inputs"][0]["name"].endswith("/log.tsv")
    ended(fail, **sections)
    events = [json.loads(line) for line in path.read_text().splitlines()][4:]
    assert [event["eventType"] for event in events] == ["START", "START", "FAIL", "FAIL"]
    assert events[2]["run"]["facets"]["errorMessage"]["message"] == "loss is NaN"


def test_lineage_over_http(ended: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "key-that-nobody-sees")
    task = "0198a4b2-0000-7000-8000-000000000000"
    monkeypatch.setenv("OPENLINEAGE_PARENT_ID", f"airflow/nightly.events/{task}")
    with recording() as server:
        code, _, err = ended(observe=observe("openlineage", lineage=server.url))
    assert code == 0
    assert "key-that" not in err
    assert [(method, path) for method, path, _ in server.requests] == [
        ("POST", "/api/v1/lineage")
    ] * 4
    assert server.headers[0]["Authorization"] == "Bearer key-that-nobody-sees"
    bodies = [
        json.loads(gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body)
        for body in server.bodies()
    ]
    assert [body["eventType"] for body in bodies] == ["START", "START", "COMPLETE", "COMPLETE"]
    parent = bodies[0]["run"]["facets"]["parent"]
    assert (parent["run"]["runId"], parent["job"]["name"]) == (task, "nightly.events")
    assert all(body["schemaURL"].startswith("https://openlineage.io/spec/") for body in bodies)


# Prometheus


def samples(text: str) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels.get("counter") or sample.labels.get("stage", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_text_file_keeps_the_last_success(ended: Any, tmp_path: Path) -> None:
    sections = {
        "observe": observe("prometheus", metrics=str(tmp_path / "node")),
        "vars": {"ds": "2026-11-22"},
    }
    _, _, err = ended(**sections)
    assert "observer" not in err
    (path,) = (tmp_path / "node").iterdir()
    assert path.name == "embedmill-plays-_ds_.prom"
    first = samples(path.read_text())
    assert first["embedmill_stage_rows", "rows_in"] == 5
    assert first["embedmill_stage_built", "events"] == 1
    assert first["embedmill_last_run_exit_code", ""] == 0
    assert 'job="plays-{ds}"' in path.read_text()
    # A command of one stage has the figures of those that others have finished.
    run = finished(
        clusters(users=9, items=7), tmp_path / "more", index={"kind": "flat"}, **sections
    )
    MetricsObserver(run, 0.0).run_ended(RunEnd(RunRecord(run).result(), False, time.time()))
    (other,) = (p for p in (tmp_path / "node").iterdir() if p != path)
    every = samples(other.read_text())
    assert every["embedmill_stage_built", "export"] == every["embedmill_stage_built", "vocab"] == 0
    other.unlink()
    ended(fail, **sections)
    second = samples(path.read_text())
    success = ("embedmill_last_success_timestamp_seconds", "")
    assert second["embedmill_last_run_exit_code", ""] == 5
    assert second[success] == first[success] > time.time() - 600
    assert ("embedmill_stage_rows", "rows_in") not in second


def test_a_push(ended: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with recording(202) as server:
        address = server.url.replace("://", "://prom:pass-word@")
        monkeypatch.setenv("GATEWAY", address)
        code, _, err = ended(observe=observe("prometheus", metrics="$GATEWAY"))
    assert (code, "observer" in err) == (0, False), err
    ((method, path, body),) = server.requests
    assert (method, path) == ("POST", "/metrics/job/plays-2026-11-22")
    assert server.headers[0]["Authorization"].startswith("Basic ")
    assert samples(body.decode())["embedmill_stage_rows", "rows_in"] == 5
    assert b'job="' not in body


@pytest.mark.skipif(not shutil.which("prometheus-pushgateway"), reason="not installed")
def test_a_real_pushgateway(ended: Any, tmp_path: Path) -> None:
    url = gone()
    words = ["prometheus-pushgateway", f"--web.listen-address={url.removeprefix('http://')}"]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as gateway:
        try:
            for _ in range(200):
                with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/-/ready"):
                    break
                time.sleep(0.05)
            for job in (build, fail):
                _, _, err = ended(job, observe=observe("prometheus", metrics=url))
                assert "observer" not in err
            with urllib.request.urlopen(f"{url}/metrics") as answer:
                found = samples(answer.read().decode())
        finally:
            gateway.terminate()
    # The failure has replaced what it knows, and left the last success.
    assert found["embedmill_last_run_exit_code", ""] == 5
    assert found["embedmill_last_success_timestamp_seconds", ""] > time.time() - 600
    assert found["embedmill_stage_rows", "rows_in"] == 5


# OpenTelemetry


def test_spans(ended: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setenv("TRACEPARENT", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    make = ObserverKind.make

    def slow(kind: ObserverKind, *words: Any) -> Any:
        time.sleep(0.5)  # as long as a library takes to import: the stage begins meanwhile
        return make(kind, *words)

    monkeypatch.setattr(ObserverKind, "make", slow)
    _, result, err = ended(observe=observe("opentelemetry"))
    assert "observer" not in err
    stage, run = exporter.get_finished_spans()
    assert (stage.name, run.name) == ("events", "embedmill plays-2026-11-22")
    assert stage.parent.span_id == run.context.span_id
    assert f"{run.context.trace_id:x}" == "af7651916cd43dd8448eb211c80319c"
    assert stage.attributes["embedmill.content"] == result["stages"][0]["content"]
    assert stage.attributes["embedmill.rows.rows_in"] == 5
    assert run.start_time <= stage.start_time <= stage.end_time <= run.end_time
    exporter.clear()
    ended(fail, observe=observe("opentelemetry"))
    stage, run = exporter.get_finished_spans()
    assert [one.status.status_code.name for one in (stage, run)] == ["ERROR", "ERROR"]


def test_spans_over_http(ended: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    monkeypatch.delenv("TRACEPARENT", raising=False)
    with recording() as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.url)
        _, _, err = ended(observe=observe("opentelemetry"))
    assert "observer" not in err
    assert [path for _, path, _ in server.requests] == ["/v1/traces"] * 2
    spans = [
        span.name
        for body in server.bodies()
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert spans == ["events", "embedmill plays-2026-11-22"]


# Commands and webhooks


def test_a_failure_is_announced(ended: Any, tmp_path: Path) -> None:
    kept = tmp_path / "result.json"
    command = f"cp /dev/stdin {kept}"
    with recording() as server:
        code, result, err = ended(fail, run={"on_failure": [command, server.url]})
        assert (code, "run.on_failure" in err) == (5, False), err
        posted = json.loads(server.bodies()[0])
        assert posted | {"seconds": 0} == result | {"seconds": 0}
        assert json.loads(kept.read_text()) == posted
        assert posted["failure"]["stage"] == "events"
        code, _, _ = ended(run={"on_failure": [command, server.url]})
        assert (code, len(server.requests)) == (0, 1)


# Down, slow, broken


BROKEN = ["openlineage", "prometheus", "opentelemetry", "mlflow"]


@pytest.mark.parametrize("kind", ["gone", "hangs", "answers 500"])
def test_nothing_changes(
    ended: Any, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Content and exit code are those of a run without observers."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    _, plain, _ = ended()
    with hanging() as silent, recording(500) as broken:
        url = {"gone": gone(), "hangs": silent, "answers 500": broken.url}[kind]
        monkeypatch.setenv("SECRET_URL", f"{url}/token-in-a-path")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        observed = {
            "observe": observe(*BROKEN, lineage=url, metrics="$SECRET_URL", timeout=1.0),
            "run": {"on_failure": ["$SECRET_URL", "no-such-program", "false"]},
        }
        began = time.monotonic()
        code, result, err = ended(**observed)
        failed, _, said = ended(fail, **observed)
        assert time.monotonic() - began < 15
    assert (code, failed) == (0, 5)
    assert result["stages"][0]["content"] == plain["stages"][0]["content"]
    for name in BROKEN:
        # MLflow is not installed, the others' servers fail: one warning each.
        assert sum(name in line for line in err.splitlines()) == 1, err
    assert "token-in-a-path" not in err + said
    stored = [path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert stored
    assert not any(b"token-in-a-path" in data for data in stored)
    for text in ("$SECRET_URL", "no-such-program", "false: ended with exit code 1"):
        assert f"run.on_failure: {text}" in said


def test_a_command_that_hangs_is_stopped(ended: Any) -> None:
    began = time.monotonic()
    code, _, err = ended(fail, run={"on_failure": ["sleep 60"]}, observe={"long_timeout": 0.5})
    assert (code, time.monotonic() - began < 20) == (5, True)
    assert "run.on_failure: sleep 60: took too long, and was stopped" in err


def test_a_password_in_the_config_is_refused(ended: Any) -> None:
    with pytest.raises(Exception, match=r"run\.on_failure: holds a password"):
        ended(run={"on_failure": ["https://me:secret@example.org"]})
