"""The whole line on a planted world: raw log to report, and the commands that people call."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest

from embedmill.jobs.all import run_line
from embedmill.pipeline.config import Config, parse, to_toml
from embedmill.pipeline.errors import GateError, StaleArtifactError
from embedmill.pipeline.store import contracts
from embedmill.pipeline.store.run import Run, open_run, published
from embedmill.pipeline.terminal import Terminal
from embedmill.schemas.run import PUBLISHED
from embedmill.schemas.stages import STAGES
from tests.support.commands import Cli
from tests.support.worlds import PlantedWorld, config_tree, laid

WORLD = PlantedWorld()


def world_config(folder: Path, root: str | Path, **sections: Any) -> Config:
    """The planted world on disk, with titles, and a config that trains it well."""
    log, items = WORLD.write(folder / "log.tsv"), WORLD.write_items(folder / "items.tsv")
    tree = config_tree(root, log)
    tree["events"] |= {"items": {"paths": str(items), "categories": "genres"}}
    tree["train"] |= {"epochs": 12, "learning_rate": 0.3}
    tree["evaluate"] |= {"gates": {"over_popularity": {"recall@5": 1.5}}}
    return parse(laid(tree, **sections))


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run; read only."""
    folder = tmp_path_factory.mktemp("line")
    run = Run(world_config(folder, folder / "runs"))
    run_line(run, terminal=Terminal(quiet=True))
    return run


def test_every_arrow_keeps_its_contract(line: Run) -> None:
    for stage, contract in STAGES.items():
        artifact = line.artifact(stage)
        contracts.check_counters(stage, artifact.counters, "")
        contracts.check_files(stage, artifact.manifest.files, artifact.counters, "")
        read = {i.stage: i.content for i in artifact.manifest.inputs}
        whole = {s: line.artifact(s).manifest.content for s in contract.inputs}
        if stage != "report" and "events" in whole:  # of which only the rows are seen
            assert read.pop("events") != whole.pop("events")
        assert read == whole
        assert list(artifact.verify()) == []
    counters = {stage: line.artifact(stage).counters for stage in STAGES}
    assert counters["events"]["rows_in"] == len(WORLD.events())
    assert counters["events"]["events"] == counters["vocab"]["events_in"]
    assert counters["shards"]["events_in"] == counters["events"]["events"]
    assert counters["vocab"]["users"] == counters["train"]["users"] == counters["export"]["users"]
    assert counters["export"]["items"] == counters["index"]["indexed"] == WORLD.items


def test_the_planted_clusters_are_found(line: Run) -> None:
    metrics = line.artifact("evaluate").read_json("metrics.json")
    assert metrics["recall@5"] > 2 * metrics["popularity.recall@5"]
    assert metrics["index.recall@10"] >= 0.95


def test_a_whole_line_is_published(line: Run) -> None:
    pointer = published(line.config.run.root)
    assert pointer is not None
    assert pointer.run == "tiny"
    assert pointer.stages["report"] == line.artifact("report").manifest.content


def test_an_old_run_does_not_take_the_pointer_from_a_newer_one(line: Run, tmp_path: Path) -> None:
    shutil.copytree(line.storage.root, tmp_path / "tiny")
    tree = line.config.model_dump()
    tree["run"]["root"] = str(tmp_path)
    run, terminal = Run(parse(tree)), Terminal(quiet=True)
    # Killed between the report and the pointer: the same command publishes.
    run_line(run, terminal=terminal)
    pointer = published(str(tmp_path))
    assert pointer is not None
    assert pointer.run == "tiny"
    newer = pointer.model_copy(update={"run": "newer", "published": "2999-01-01T00:00:00+00:00"})
    (tmp_path / "published.json").write_bytes(PUBLISHED.encode(newer))
    run_line(run, terminal=terminal)
    assert published(str(tmp_path)) == newer


def test_the_same_command_again_costs_nothing(
    line: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {stage: line.artifact(stage).manifest for stage in STAGES}
    run_line(line)
    assert capsys.readouterr().out.count("up to date") == len(STAGES)
    assert {stage: line.artifact(stage).manifest for stage in STAGES} == before


def test_a_changed_field_is_named_and_rebuilt_on_request(line: Run, tmp_path: Path) -> None:
    shutil.copytree(line.storage.root, tmp_path / "tiny")
    tree = line.config.model_dump()
    tree["run"]["root"] = str(tmp_path)
    tree["evaluate"]["slices"] = 2
    run, terminal = Run(parse(tree)), Terminal(quiet=True)
    with pytest.raises(StaleArtifactError, match=r"evaluate\.slices was 3, is now 2"):
        run_line(run, terminal=terminal)
    run_line(run, terminal=terminal, rebuild=True)
    for stage in ("events", "train", "index"):
        assert run.artifact(stage).manifest == line.artifact(stage).manifest
    assert run.up_to_date("report")


def test_a_run_below_its_gates_is_complete_but_not_published(line: Run, tmp_path: Path) -> None:
    shutil.copytree(line.storage.root, tmp_path / "tiny")
    shutil.copy(Path(line.config.run.root) / "published.json", tmp_path / "published.json")
    before = published(str(tmp_path))
    tree = line.config.model_dump()
    tree["run"]["root"] = str(tmp_path)
    tree["evaluate"]["gates"] = {"least": {"recall@5": 0.999999}}
    run = Run(parse(tree))
    with pytest.raises(GateError, match=r"1 of 1 gates failed: .*recall@5.*not published"):
        run_line(run, terminal=Terminal(quiet=True), rebuild=True)
    assert run.manifest("report") is not None
    assert published(str(tmp_path)) == before


def test_a_part_is_not_built_on_stages_of_another_config(line: Run, tmp_path: Path) -> None:
    shutil.copytree(line.storage.root, tmp_path / "tiny")
    tree = line.config.model_dump()
    tree["run"]["root"] = str(tmp_path)
    tree["train"]["dim"] = 4
    run = Run(parse(tree))
    with pytest.raises(StaleArtifactError, match=r"train\.dim was 8, is now 4"):
        run_line(run, first="evaluate", terminal=Terminal(quiet=True))
    assert published(str(tmp_path)) is None
    assert open_run(str(tmp_path / "tiny")).config.train.dim == 8


def test_the_closing_table_is_of_this_command(line: Run, tmp_path: Path, embedmill: Cli) -> None:
    shutil.copytree(line.storage.root, tmp_path / "tiny")
    path = tmp_path / "run.toml"
    path.write_text(to_toml(line.config))
    again = ["run", path, "--set", f"run.root={tmp_path}"]
    code, out, _ = embedmill(again)
    assert (code, "\npublished, " in out) == (0, True)
    code, out, err = embedmill([*again, "--set", "report.labels=7"])
    assert (code, "report.labels was 25, is now 7" in err) == (4, True)
    assert "published" not in out
    floor = "evaluate.gates.least={'recall@5' = 0.999999}"
    code, out, _ = embedmill([*again, "--rebuild", "--set", floor])
    assert (code, "NOT published: a gate failed" in out) == (6, True)


def test_the_line_in_memory(tmp_path: Path) -> None:
    config = world_config(tmp_path, f"memory://{uuid.uuid4().hex}", train={"epochs": 1})
    run = Run(parse(laid(config.model_dump(), evaluate={"gates": {}})))
    run_line(run, terminal=Terminal(quiet=True))
    assert all(list(run.artifact(stage).verify()) == [] for stage in STAGES)
    assert published(run.config.run.root) is not None


def test_parts_of_the_line(tmp_path: Path, embedmill: Cli) -> None:
    path = tmp_path / "run.toml"
    path.write_text(to_toml(world_config(tmp_path, tmp_path / "runs")))
    code, out, err = embedmill(["run", path, "--to", "vocab"])
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "events    started"
    assert max(map(len, out.splitlines())) <= 80
    code, out, err = embedmill(["run", path, "--from", "train", "--to", "train"])
    assert code == 4
    assert "stage 'shards' has not finished" in err
    assert err.count("\n") == 1
    code, _, err = embedmill(["run", path, "--from", "shards", "--to", "vocab"])
    assert (code, "stage 'vocab' comes before 'shards'" in err) == (2, True)
    code, _, err = embedmill(["run", path, "--to", "nowhere"])
    assert (code, "no stage 'nowhere'" in err) == (2, True)
    code, out, _ = embedmill(["status", tmp_path / "runs" / "tiny"])
    assert code == 0
    assert [row.split()[1] for row in out.splitlines()[1:4]] == ["done", "done", "not"]


def test_status(line: Run, embedmill: Cli) -> None:
    code, out, _ = embedmill(["status", line.storage.root])
    assert code == 0
    assert out.count(" done ") == len(STAGES)
    assert f"published in {line.config.run.root}: tiny" in out
    assert max(map(len, out.splitlines()[:-1])) <= 80
    assert out.count("rows/s") == out.count("memory") == 1
    _, out, _ = embedmill(["status", line.storage.root, "--json"])
    said = json.loads(out)
    assert said["events"]["counters"]["events"] == len(WORLD.events())
    measured = said["events"]["measured"]
    assert measured["rows_per_second"] * said["events"]["seconds"] == pytest.approx(
        len(WORLD.events()), rel=0.01
    )
    assert measured["read_bytes"] == (Path(line.config.events.paths[0])).stat().st_size
    assert measured["peak_bytes"] > 50 << 20  # an interpreter with an engine in it
    assert "shuffle_bytes" not in measured  # the embedded engine does not tell


def test_metrics_are_one_flat_object(line: Run, embedmill: Cli) -> None:
    _, out, _ = embedmill(["metrics", line.storage.root, "--json"])
    flat = json.loads(out)
    assert all(isinstance(v, int | float | str) for v in flat.values())
    wanted = {"recall@10", "ndcg@10", "popularity.recall@10", "index.recall@10", "seconds.total"}
    assert wanted <= flat.keys()
    assert flat["seconds.total"] == pytest.approx(
        sum(flat[f"seconds.{stage}"] for stage in STAGES), abs=0.01
    )
    _, out, _ = embedmill(["metrics", line.storage.root])
    assert len(out.splitlines()) == len(flat)


def test_verify_names_a_flipped_byte(line: Run, tmp_path: Path, embedmill: Cli) -> None:
    code, out, _ = embedmill(["verify", line.storage.root])
    assert (code, out.count(" ok: ")) == (0, len(STAGES))
    run = shutil.copytree(line.storage.root, tmp_path / "tiny")
    victim = run / "shards" / "train" / "part-00002.parquet"
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 0x10
    victim.write_bytes(bytes(data))
    code, out, err = embedmill(["verify", run])
    assert code == 4
    assert "shards    differs" in out
    assert "1 files differ" in err or "1 file differs" in err
    assert "shards/train/part-00002.parquet differs from its sha256" in err


@pytest.mark.parametrize(
    ("stage", "path"),
    [("events", "events/data/part-00000.parquet"), ("export", "export/items.npy")],
)
def test_a_damaged_file_is_built_anew_from_its_stage(
    line: Run, tmp_path: Path, embedmill: Cli, stage: str, path: str
) -> None:
    root = shutil.copytree(line.storage.root, tmp_path / "tiny")
    whole = (root / path).read_bytes()
    (root / path).write_bytes(whole[:-9] + b"x" + whole[-8:])
    assert embedmill(["verify", str(root)])[0] == 4
    config = tmp_path / "run.toml"
    config.write_text(to_toml(line.config))
    again = ["run", str(config), "--set", f"run.root={tmp_path}", "--from", stage, "--rebuild"]
    assert embedmill(again)[0] == 0
    assert embedmill(["verify", str(root)])[0] == 0
    assert (root / path).read_bytes() == whole


def test_recommend_stays_in_the_users_cluster(line: Run, embedmill: Cli) -> None:
    code, out, _ = embedmill(["recommend", line.storage.root, "--user", "u5", "-k", "2", "--json"])
    found = json.loads(out)
    assert code == 0
    # Eight of the cluster's ten items are seen: two are left.
    assert [int(hit["item"][1:]) % WORLD.clusters for hit in found] == [1, 1]
    seen = {item for user, item, *_ in WORLD.events() if user == "u5"}
    assert not seen & {hit["item"] for hit in found}
    _, out, _ = embedmill(["recommend", line.storage.root, "--user", "u5"])
    assert "Item " in out


def test_neighbors_are_of_the_cluster(line: Run, embedmill: Cli) -> None:
    code, out, _ = embedmill(["neighbors", line.storage.root, "--item", "i6", "-k", "4", "--json"])
    found = json.loads(out)
    assert code == 0
    assert {int(hit["item"][1:]) % WORLD.clusters for hit in found} == {2}
    assert "i6" not in {hit["item"] for hit in found}
    assert found[0]["title"] == f"Item {found[0]['item'][1:]}"
    _, by_title, _ = embedmill(
        ["neighbors", line.storage.root, "--item", "Item 6", "-k", "4", "--json"]
    )
    assert json.loads(by_title) == found


@pytest.mark.parametrize("words", [["recommend", "--user"], ["neighbors", "--item"]])
def test_an_unknown_id(line: Run, embedmill: Cli, words: list[str]) -> None:
    code, _, err = embedmill([words[0], line.storage.root, words[1], "nobody"])
    assert code == 3
    assert "nobody" in err
    assert err.count("\n") == 1


def test_a_log_without_test_events_and_with_an_id_of_two_lines(
    tmp_path: Path, embedmill: Cli
) -> None:
    """One event a user: all are trained on, nothing is held out."""
    log = tmp_path / "log.csv"
    log.write_text('user_id,item_id,time,rating\nu1,"[b]\ni",1600000000,5\nu2,i2,1600000000,5\n')
    config = world_config(tmp_path, tmp_path / "runs", events={"format": "csv", "paths": str(log)})
    path = tmp_path / "run.toml"
    path.write_text(to_toml(parse(laid(config.model_dump(), evaluate={"gates": {}}))))
    code, out, err = embedmill(["run", str(path)])
    assert (code, err) == (0, "")
    assert "nothing was measured on test" in out
    assert "popularity" not in out
    code, out, _ = embedmill(["recommend", f"{tmp_path}/runs/tiny", "--user", "u2"])
    assert (code, "[b]\\ni" in out) == (0, True)


def test_config_prints_the_resolved_run(line: Run, tmp_path: Path, embedmill: Cli) -> None:
    path = tmp_path / "run.toml"
    path.write_text(to_toml(line.config))
    code, out, _ = embedmill(["config", path, "--set", "train.epochs=2"])
    assert code == 0
    assert "epochs = 2" in out
    code, _, err = embedmill(["config", path, "--set", "train.epoch=2"])
    assert (code, err.count("\n")) == (2, 1)
    assert "train.epoch: unknown key; did you mean 'epochs'?" in err


def test_usage(embedmill: Cli) -> None:
    assert embedmill([])[0] == 0
    assert embedmill(["--version"])[1].startswith("embedmill 0.")
    code, _, err = embedmill(["nonsense"])
    assert (code, err.count("\n")) == (2, 1)
    code, _, err = embedmill(["status", "nowhere"])
    assert (code, "no run here" in err) == (4, True)


def test_open_run_of_a_finished_line(line: Run) -> None:
    assert open_run(line.storage.root).up_to_date("report")
