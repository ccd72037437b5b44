from __future__ import annotations

import json
import os
import re
import threading
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedmill.jobs.cli.render import print_stages
from embedmill.pipeline.errors import (
    ArtifactError,
    ContractError,
    CorruptArtifactError,
    MissingArtifactError,
    StaleArtifactError,
)
from embedmill.pipeline.store import publication
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.run import Run, open_run, published, save_config
from embedmill.pipeline.store.storage import Storage
from embedmill.schemas.events import EVENTS
from embedmill.schemas.manifest import FileEntry, Manifest, digest
from embedmill.schemas.run import MANIFEST
from embedmill.schemas.stages import STAGES
from tests.support.artifacts import counted, vocabulary
from tests.support.worlds import config

COUNTERS = {"rows_in": 3, "events": 2, "rejected": 1, "merged": 0, "rejects_kept": 0}


@pytest.fixture(params=["local", "memory"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    root = str(tmp_path / "runs") if request.param == "local" else f"memory://{uuid.uuid4().hex}"
    return Run(config(root, "log.tsv"))


def events_table(users: list[str]) -> pa.Table:
    columns = [users, ["i"] * len(users), [1] * len(users), [1.0] * len(users), [None] * len(users)]
    return pa.table(dict(zip(EVENTS.names, columns, strict=True)), schema=EVENTS)


def events(run: Run, users: tuple[str, str] = ("a", "b"), **sources: Any) -> Artifact:
    out = run.writer("events", sources)
    out.write_table("data/part-00000.parquet", events_table(list(users)))
    out.write_json("times.json", {"at": uuid.uuid4().hex}, volatile=True)
    return out.commit(COUNTERS)


def vocab(run: Run) -> Artifact:
    out = run.writer("vocab")
    table = vocabulary(["a", "b"], [1, 1])
    out.write_table("users/part-00000.parquet", table)
    out.write_table("items/part-00000.parquet", table)
    return out.commit(
        {"events_in": 2, "events_kept": 2, "events_dropped": 0, **counted(table, table)}
    )


def test_no_manifest_no_artifact(run: Run) -> None:
    out = run.writer("events")
    out.write_table("data/part-00000.parquet", events_table(["a", "b"]))
    assert run.manifest("events") is None
    assert not run.up_to_date("events")
    with pytest.raises(MissingArtifactError, match="stage 'events' has not finished"):
        run.artifact("events")
    with pytest.raises(MissingArtifactError):
        run.writer("vocab")
    out.commit(COUNTERS)
    assert run.artifact("events").read_tables("data")["user"].to_pylist() == ["a", "b"]


def test_reading_back(run: Run) -> None:
    done = events(run)
    again = run.artifact("events")
    assert again.manifest == done.manifest
    assert again.counters["events"] == 2
    assert [f.path for f in again.files("data")] == ["data/part-00000.parquet"]
    assert again.files("data")[0].rows == 2
    assert again.read_json("times.json").keys() == {"at"}
    assert list(again.verify()) == []
    with pytest.raises(ArtifactError, match=r"no file 'other\.json'"):
        again.read("other.json")
    with pytest.raises(ArtifactError, match="no files below 'rejects'"):
        again.read_tables("rejects")


def test_another_version_of_a_contract_is_not_read(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    events(run)
    newer = replace(STAGES["events"], version=STAGES["events"].version + 1)
    monkeypatch.setitem(STAGES, "events", newer)
    said = f"version {newer.version - 1} of its contract"
    with pytest.raises(StaleArtifactError, match=said):
        run.artifact("events")
    print_stages({"events": run.find("events"), "vocab": None})
    assert said in " ".join(capsys.readouterr().out.split())


def test_content_is_what_was_computed_not_when(run: Run) -> None:
    first = events(run)
    run.discard("events")
    assert run.manifest("events") is None
    second = events(run)
    assert first.manifest.content == second.manifest.content
    assert first.manifest.files != second.manifest.files  # the volatile one
    run.discard("events")
    assert events(run, ("a", "c")).manifest.content != first.manifest.content


def test_what_a_stage_took_is_no_content(run: Run) -> None:
    plain = events(run)
    run.discard("events")
    out = run.writer("events")
    out.started -= 10
    out.gauges.append(lambda: {"peak_bytes": 5 << 30})
    out.write_table("data/part-00000.parquet", events_table(["a", "b"]))
    out.write_json("times.json", {"at": 1}, volatile=True)
    done = out.commit(COUNTERS, {"files": 3})
    measured = done.manifest.measured
    assert measured["written_bytes"] == sum(f.bytes for f in done.manifest.files)
    assert measured["rows_per_second"] == pytest.approx(COUNTERS["rows_in"] / 10, rel=0.1)
    assert (measured["peak_bytes"], measured["files"]) == (5 << 30, 3)
    assert done.manifest.content == plain.manifest.content


def test_up_to_date_and_stale(run: Run) -> None:
    events(run, log="1")
    vocab(run)
    assert run.up_to_date("events", {"log": "1"})
    assert run.up_to_date("vocab")
    with pytest.raises(
        StaleArtifactError, match=r"'events' is stale: files of the log .*\(1 changed\): log"
    ):
        run.up_to_date("events", {"log": "2"})
    merged = Run(config(run.config.run.root, "log.tsv", events={"merge_by": "pair"}))
    with pytest.raises(StaleArtifactError, match=r'events\.merge_by was "event", is now "pair"'):
        merged.up_to_date("events", {"log": "1"})
    assert merged.up_to_date("vocab")
    run.discard("events")
    events(run, ("a", "z"), log="1")
    with pytest.raises(StaleArtifactError, match="its input 'events' has changed"):
        run.up_to_date("vocab")


@pytest.mark.parametrize(
    ("stage", "given", "unread", "read", "now"),
    [
        ("train", {"objective": "rating"}, {"train.temperature": 0.3, "train.ials.block": 4,
                                            "train.smoothing.weight": 1.0},
         {"train.l2": 0.5}, "train.l2 was 0.5, is now 1.2"),
        ("train", {"objective": "ials"}, {"train.learning_rate": 0.3, "train.ccl.margin": 0.1},
         {"train.ials.block": 4}, "train.ials.block was 4, is now 0"),
        ("index", {"kind": "flat"}, {"index.hnsw.m": 8, "index.ivf.lists": 9},
         {"index.queries": 9}, "index.queries was 9, is now 50"),
        ("index", {"kind": "hnsw"}, {"index.ivfpq.segments": 8, "index.hnsw.refine": 5},
         {"index.hnsw.m": 8}, "index.hnsw.m was 8, is now null"),
    ],
)  # fmt: skip
def test_a_value_that_was_never_read_makes_nothing_stale(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    given: dict[str, Any],
    unread: dict[str, Any],
    read: dict[str, Any],
    now: str,
) -> None:
    """Older versions took keys that the objective or the kind does not read."""
    alone = replace(STAGES[stage], inputs=())
    monkeypatch.setitem(STAGES, stage, alone)
    one = Run(config(run.config.run.root, "log.tsv", **{stage: given}))
    plain = one.writer(stage)

    def write(changes: dict[str, Any]) -> None:
        fields = {**plain.config, **changes}
        assert fields.keys() == plain.config.keys()
        made = digest([stage, alone.version, fields, [], {}])
        manifest = Manifest(
            contract=stage, version=alone.version, stage=stage, fingerprint=made, config=fields,
            inputs=[], sources={}, files=[], counters={}, created="", seconds=0.0,
            content=Manifest.content_hash(stage, alone.version, [], {}),
        )  # fmt: skip
        one.storage.at(stage).write(MANIFEST, manifest.model_dump_json().encode())

    write({})
    assert one.up_to_date(stage)
    write(unread)
    assert one.up_to_date(stage)
    write({**unread, **read})
    with pytest.raises(StaleArtifactError, match=re.escape(now)):
        one.up_to_date(stage)


def test_where_and_how_fast_make_nothing_stale(run: Run) -> None:
    events(run)
    elsewhere = Run(config(run.config.run.root, "log.tsv", run={"engine": "spark"}))
    assert elsewhere.up_to_date("events")
    many = {"workers": 3, "launcher": "ray", "threads": 2, "checkpoint_steps": 5}
    assert Run(config("runs", "log.tsv", train=many)).fields("train") == run.fields("train")


@pytest.mark.parametrize("field", ["rows_in", "events", "rejected"])
def test_rows_are_conserved(run: Run, field: str) -> None:
    out = run.writer("events")
    out.write_table("data/part-00000.parquet", events_table(["a", "b"]))
    with pytest.raises(ContractError, match=r"rows are not conserved|hold 2 rows"):
        out.commit(COUNTERS | {field: COUNTERS[field] + 1})
    with pytest.raises(ContractError, match=f"did not count {field}"):
        out.commit({k: v for k, v in COUNTERS.items() if k != field})
    assert run.manifest("events") is None


def test_rows_that_rules_dropped_are_conserved(run: Run) -> None:
    dropped = COUNTERS | {"rows_in": 10, "filtered": 3, "bots": 2, "capped": 2, "capped_users": 9}
    out = run.writer("events")
    out.write_table("data/part-00000.parquet", events_table(["a", "b"]))
    with pytest.raises(ContractError, match=r"rows_in 10 is not .* \+ filtered 3 \+ bots 1"):
        out.commit(dropped | {"bots": 1})
    out.commit(dropped)


def test_files_and_counters_agree(run: Run) -> None:
    out = run.writer("events")
    out.write_table("data/part-00000.parquet", events_table(["a"]))
    with pytest.raises(ContractError, match="below 'data' hold 1 rows, the counter 'events' says"):
        out.commit(COUNTERS)
    out.write_table("data/part-00000.parquet", events_table(["a"]))
    with pytest.raises(ContractError, match="was written twice"):
        out.commit(COUNTERS)


def test_a_table_keeps_its_contract(run: Run) -> None:
    out = run.writer("events")
    with pytest.raises(ContractError, match=r"schema of 'data/part-00000.parquet' is row: int64"):
        out.write_table("data/part-00000.parquet", pa.table({"row": [1]}))


def test_spark_metadata_is_stripped(run: Run) -> None:
    out = run.writer("events")
    table = events_table(["a", "b"]).replace_schema_metadata({"org.apache.spark": "lies"})
    out.write_table("data/part-00000.parquet", table)
    with out.commit(COUNTERS).open("data/part-00000.parquet") as raw:
        assert pq.read_schema(raw).metadata is None


def test_of_two_writers_one_commits(run: Run) -> None:
    outs, said = [run.writer("events") for _ in range(2)], []

    def commit(user: str, n: int) -> None:
        outs[n].write_table("data/part-00000.parquet", events_table(["a", user]))
        try:
            outs[n].commit(COUNTERS)
        except ArtifactError as error:
            said.append(str(error))

    threads = [threading.Thread(target=commit, args=(u, n)) for n, u in enumerate("bc")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == 1
    assert "another process finished this stage first" in said[0]


def test_the_same_content_twice_is_no_conflict(run: Run) -> None:
    first = events(run)
    again = run.writer("events")
    again.write_table("data/part-00000.parquet", events_table(["a", "b"]))
    again.write_json("times.json", {"at": "x"}, volatile=True)
    assert again.commit(COUNTERS).manifest.content == first.manifest.content
    assert list(run.artifact("events").verify()) == []
    assert run.artifact("events").read_json("times.json") == {"at": "x"}


def test_a_manifest_in_another_format_is_named_and_can_be_discarded(run: Run) -> None:
    events(run)
    path = f"events/{MANIFEST}"
    manifest = json.loads(run.storage.read(path)) | {"format": 3, "a_key_of_the_future": 1}
    run.storage.write(path, json.dumps(manifest).encode())
    with pytest.raises(StaleArtifactError, match="is in format 3, this program reads format 1"):
        run.artifact("events")
    run.discard("events")
    assert run.manifest("events") is None


@pytest.mark.parametrize("place", [0, 100, -1])
def test_verify_names_a_flipped_byte(run: Run, place: int) -> None:
    done = events(run)
    data = bytearray(done.storage.read("data/part-00000.parquet"))
    data[place] ^= 1
    done.storage.write("data/part-00000.parquet", bytes(data))
    assert list(done.verify()) == [
        ("data/part-00000.parquet", "differs from its sha256 in the manifest")
    ]
    with pytest.raises(CorruptArtifactError, match=r"part-00000\.parquet: is damaged"):
        done.read("data/part-00000.parquet")


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"no Parquet at all"])
def test_parquet_that_cannot_be_parsed_is_damaged(run: Run, damage: bytes) -> None:
    done = events(run)
    done.storage.write("data/part-00000.parquet", damage)
    with pytest.raises(CorruptArtifactError, match=r"part-00000\.parquet: is damaged"):
        done.read_table("data/part-00000.parquet")
    with pytest.raises(CorruptArtifactError, match=r"part-00000\.parquet: is damaged"):
        list(done.batches("data/part-00000.parquet"))


def test_a_flipped_byte_is_noticed_by_whoever_reads(run: Run) -> None:
    done = events(run)
    data = bytearray(done.storage.read("data/part-00000.parquet"))
    place = data.index(b"PAR1") + 60  # within the pages, before the footer
    data[place] ^= 1
    done.storage.write("data/part-00000.parquet", bytes(data))
    with pytest.raises(CorruptArtifactError):
        done.read_tables("data")


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_names_are_durable_before_the_manifest_and_the_manifest_is_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, said, link, fsync = Run(config(tmp_path, "log.tsv")), list[str](), os.link, os.fsync

    def synced(descriptor: int) -> None:
        said.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "link", lambda *paths: (said.append("manifest"), link(*paths)))
    events(one)
    folder = tmp_path / "tiny" / "events"
    before, after = said[: said.index("manifest")], said[said.index("manifest") :]
    assert {str(folder / "data"), str(folder), str(tmp_path / "tiny")} <= set(before)
    assert str(folder) in after
    files = [name for name in before if name.endswith(".part")]
    assert len(files) == 3  # of events, of times and of the manifest
    assert before.index(files[1]) < before.index(str(folder / "data"))


def test_verify_names_a_cut_and_a_missing_file(run: Run) -> None:
    done = events(run)
    whole = done.storage.read("times.json")
    done.storage.write("times.json", whole[:-3])
    done.storage.remove("data/part-00000.parquet")
    found = dict(done.verify())
    assert found["times.json"].startswith(f"has {len(whole) - 3} bytes, the manifest says")
    assert found["data/part-00000.parquet"] == "is missing"
    with pytest.raises(CorruptArtifactError, match="named in the manifest but missing"):
        done.read_tables("data")


@pytest.mark.parametrize("again", [False, True])
def test_verify_beside_a_rebuild(run: Run, *, again: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage is discarded, or built anew, after the first of its files was read."""
    events(run)
    rebuilds = [again]

    def then_rebuild(artifact: Artifact, entry: FileEntry) -> str:
        found = wrong(artifact, entry)
        for once in rebuilds:
            rebuilds.clear()
            Run(run.config).discard("events")
            if once:
                events(Run(run.config), ("c", "d"))
        return found

    wrong = Artifact._wrong
    monkeypatch.setattr(Artifact, "_wrong", then_rebuild)
    found, differences = run.verify("events")
    assert differences == []
    assert (found is not None) == again
    if found is not None:
        assert found.read_tables("data")["user"].to_pylist() == ["c", "d"]
        found.storage.remove("times.json")
        assert run.verify("events")[1] == [("times.json", "is missing")]


@pytest.mark.parametrize("change", [b"", b"{", b'"rejected": 1', b'"sha256": "'])
def test_a_damaged_manifest(run: Run, change: bytes) -> None:
    done = events(run)
    data = done.storage.read("manifest.json")
    assert change in data
    if len(change) < 2:
        data = change
    elif change.startswith(b'"rej'):
        data = data.replace(change, b'"rejected": 2')
    else:
        at = data.index(change) + len(change)
        data = data[:at] + (b"0" if data[at : at + 1] != b"0" else b"1") + data[at + 1 :]
    done.storage.write("manifest.json", data)
    with pytest.raises(CorruptArtifactError, match=r"manifest\.json: is damaged"):
        run.artifact("events")


def test_open_run_reads_the_stored_config(run: Run) -> None:
    save_config(run)
    again = open_run(run.storage.root + "/")
    assert again.config == run.config
    with pytest.raises(MissingArtifactError, match="no run here"):
        open_run(run.config.run.root)


def test_a_moved_run_is_read_where_it_stands(tmp_path: Path) -> None:
    one = Run(config(tmp_path / "runs", "log.tsv"))
    save_config(one)
    events(one)
    (tmp_path / "runs" / "tiny").rename(tmp_path / "elsewhere")
    again = open_run(str(tmp_path / "elsewhere"))
    assert again.artifact("events").counters["events"] == 2


def test_published_points_at_a_whole_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    root = run.config.run.root
    assert published(root) is None
    events(run)
    with pytest.raises(MissingArtifactError):
        publication.publish(run)
    assert published(root) is None
    vocab(run)
    few = {name: STAGES[name] for name in ("events", "vocab")}
    monkeypatch.setattr(publication, "STAGES", few)
    publication.publish(run)
    pointer = published(root)
    assert pointer is not None
    assert pointer.run == "tiny"
    assert pointer.stages["vocab"] == run.artifact("vocab").manifest.content
    assert json.loads(Storage(root).read("published.json")) == pointer.as_json()


@pytest.mark.parametrize("text", ["", "[]", '{"run": "tiny"}', '{"format": 2, "run": "tiny"}'])
def test_a_damaged_pointer_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "published.json").write_text(text)
    with pytest.raises(CorruptArtifactError, match=r"published\.json: does not say which run"):
        published(str(tmp_path))
