"""A run for each day: backfill, the JSON object of commands, late files, what is published."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from embedmill.jobs import events as events_job
from embedmill.pipeline.config.toml import emit
from embedmill.pipeline.store.run import open_run
from embedmill.pipeline.views.vocab import Vocab
from embedmill.schemas.run import BackfillResult, RunResult
from embedmill.schemas.stages import STAGES
from tests.support.commands import Cli
from tests.support.worlds import PlantedWorld, config_tree, laid

DAYS = ("2026-11-20", "2026-11-21")
GATE = "evaluate.gates.least={'recall@5'=0.999999}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a TOML and a log of two days; the second day has one more file."""
    folder = tmp_path_factory.mktemp("backfill")
    for day in DAYS:
        (folder / f"logs/date={day}").mkdir(parents=True)
        PlantedWorld().write(folder / f"logs/date={day}/part-01.tsv")
    tree = laid(
        config_tree(folder / "runs", f"{folder}/logs/date={{ds}}/part-{{01,02}}.tsv", "plays-{ds}"),
        run={"on_publish": f"cp /dev/stdin {folder}/announced.json"},
        vocab={"previous": "published"},
        train={"objective": "spectral", "dim": 8},
    )
    (folder / "plays.toml").write_text(emit({"vars": {"ds": DAYS[0]}, **tree}), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def first(world: Path) -> BackfillResult:
    """What the first backfill said."""
    from typer.testing import CliRunner

    from embedmill.jobs.cli import app

    words = ["backfill", str(world / "plays.toml"), "--from", DAYS[0], "--to", DAYS[1], "--json"]
    answer = CliRunner().invoke(app, words, catch_exceptions=False)
    return BackfillResult.model_validate_json(answer.stdout.splitlines()[-1])


def result_of(out: str) -> RunResult:
    return RunResult.model_validate_json(out.splitlines()[-1])


def times(world: Path) -> dict[Path, int]:
    """When files were written, but for the config and the lease."""
    files = (p for p in world.rglob("*") if p.is_file() and p.parent.name != "lease")
    return {p: p.stat().st_mtime_ns for p in files if p.name != "config.json"}


def published(world: Path) -> str:
    return str(json.loads((world / "runs/published.json").read_text())["run"])


def test_each_day_continues_the_one_before(world: Path, first: BackfillResult) -> None:
    assert (first.state, first.exit_code, list(first.days)) == ("done", 0, list(DAYS))
    for day, result in first.days.items():
        assert [one.stage for one in result.stages] == list(STAGES)
        assert {one.state for one in result.stages} == {"built"}
        assert (result.run, result.vars, result.published) == (f"plays-{day}", {"ds": day}, True)
        assert result.metrics["recall@5"] > 0
        assert all(Path(one.uri, "manifest.json").exists() for one in result.stages)
    base = Vocab(open_run(str(world / "runs" / f"plays-{DAYS[1]}")).artifact("vocab")).base_run()
    assert base is not None
    assert base.continues.endswith(f"plays-{DAYS[0]}")
    assert published(world) == f"plays-{DAYS[1]}"


def test_again_it_builds_nothing(world: Path, first: BackfillResult, embedmill: Cli) -> None:
    before = times(world)
    words = ["--from", DAYS[0], "--to", DAYS[1]]
    code, out, _ = embedmill(["backfill", world / "plays.toml", *words])  # type: ignore[list-item]
    assert code == 0
    assert f"{DAYS[0]}: stands, not published: it was looked at again" in out
    assert f"{DAYS[1]}: stands, published" in out
    assert times(world) == before
    assert first.days[DAYS[0]].published  # when it ran


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--from", "yesterday", "--to", DAYS[1]], "--from: a day such as 2026-11-22, not 'yester"),
        (["--from", DAYS[1], "--to", DAYS[0]], f"--to: '{DAYS[0]}' comes before '{DAYS[1]}'"),
        (["--from", DAYS[0], "--to", DAYS[1], "--set", "run.name=x"], "'x' is the name of several"),
        (["--from", DAYS[0], "--to", DAYS[1], "--variable", "day"], "--var day: no string uses"),
    ],
)
def test_wrong_days(world: Path, embedmill: Cli, words: list[str], said: str) -> None:
    code, out, err = embedmill(["backfill", str(world / "plays.toml"), *words, "--json"])
    assert code == 2
    assert said in err
    answer = BackfillResult.model_validate_json(out.splitlines()[-1])
    assert (answer.state, answer.exit_code, answer.days) == ("failed", 2, {})


def test_a_late_file_is_told_apart_from_a_changed_config(
    world: Path, first: BackfillResult, embedmill: Cli, tmp_path: Path
) -> None:
    shutil.copytree(world / "logs", tmp_path / "logs")
    shutil.copytree(world / "runs", tmp_path / "runs")
    file = tmp_path / "plays.toml"
    file.write_text((world / "plays.toml").read_text().replace(str(world), str(tmp_path)))
    run = ["run", str(file), "--var", f"ds={DAYS[0]}"]
    code, out, _ = embedmill([*run, "--json", "--to", "events"])
    assert (code, result_of(out).stages[0].state) == (0, "up to date")
    PlantedWorld(seed=8).write(tmp_path / f"logs/date={DAYS[0]}/part-02.tsv")
    code, out, err = embedmill([*run, "--json"])
    command = f"embedmill run {file} --var ds={DAYS[0]} --rebuild"
    assert code == 4
    assert "files of the log came or changed after it was built (1 new): " in err
    assert err.rstrip().endswith(f"To take them in: {command}")
    result = result_of(out)
    assert (result.state, result.published, result.stages) == ("failed", False, [])
    assert result.failure is not None
    assert (result.failure.error, result.failure.stage) == ("LateFilesError", "events")
    assert (result.failure.todo, result.failure.retry) == (f"To take them in: {command}", False)
    code, out, _ = embedmill(["status", str(tmp_path / "runs" / f"plays-{DAYS[0]}")])
    assert (code, "failed at " in out, "exit code 4, running it again will not help" in out) == (
        0, True, True,
    )  # fmt: skip
    code, _, err = embedmill(["backfill", str(file), "--from", DAYS[0], "--to", DAYS[1]])
    assert (code, err.rstrip().endswith(command)) == (4, True)
    code, _, err = embedmill([*run, "--set", "events.merge_by=pair"])
    assert (code, "events.merge_by was" in err) == (4, True)
    code, out, _ = embedmill([*run, "--rebuild", "--to", "vocab"])
    assert code == 0
    assert "came" not in out


def test_publishing(world: Path, first: BackfillResult, embedmill: Cli, tmp_path: Path) -> None:
    shutil.copytree(world / "runs", tmp_path / "runs")
    file = world / "plays.toml"
    to = ["--set", f"run.root={tmp_path / 'runs'}"]
    older, newer = (tmp_path / "runs" / f"plays-{day}" for day in DAYS)
    code, out, err = embedmill(["publish", str(older)])
    assert (code, published(tmp_path)) == (6, newer.name)
    assert f"'{newer.name}' is for {DAYS[1]}, this run for {DAYS[0]}" in err
    code, out, _ = embedmill(["rollback", str(tmp_path / "runs")])
    assert (code, published(tmp_path)) == (0, older.name)
    assert result_of((world / "announced.json").read_text()).run == older.name
    code, out, _ = embedmill(["publish", str(newer)])
    assert (code, published(tmp_path)) == (0, newer.name)
    announced = result_of((world / "announced.json").read_text())
    assert (announced.run, len(announced.stages)) == (newer.name, len(STAGES))
    # Built anew, an older day still leaves the pointer where it is.
    again = ["run", str(file), *to, "--var", f"ds={DAYS[0]}", "--set", "report.labels=3"]
    code, out, _ = embedmill([*again, "--rebuild"])
    assert code == 0
    assert f"NOT published: '{newer.name}' is for {DAYS[1]}, this run for {DAYS[0]}" in out
    newest = ["run", str(file), *to, "--var", f"ds={DAYS[1]}", "--rebuild", "--json"]
    code, out, err = embedmill([*newest, "--set", GATE, "--no-publish", "--log", "json"])
    assert json.loads(err.splitlines()[-1])["error"] == "GateError"
    assert {json.loads(line)["run"] for line in err.splitlines()} == {newer.name}
    result = result_of(out)
    assert (code, result.exit_code, result.state) == (6, 6, "failed")
    assert [gate.passed for gate in result.gates] == [False]
    assert (len(result.stages), result.published) == (8, False)
    code, _, err = embedmill(["publish", str(newer), "--force"])
    assert (code, "1 of 1 gates failed" in err) == (6, True)
    code, out, _ = embedmill([*newest, "--no-publish"])
    result = result_of(out)
    assert (code, result.published) == (0, True)  # it was published before, and still stands
    code, out, _ = embedmill(["list", str(tmp_path / "runs"), "--json"])
    runs = json.loads(out)
    assert [(run["run"], run["date"], run["state"], run["published"]) for run in runs] == [
        (newer.name, DAYS[1], "done", True), (older.name, DAYS[0], "done", False),
    ]  # fmt: skip
    code, out, _ = embedmill(["list", str(tmp_path / "runs")])
    assert (code, max(map(len, out.splitlines())) <= 80, "recall@10" in out) == (0, True, True)
    code, _, err = embedmill(["list", str(tmp_path)])
    assert (code, "no runs here" in err) == (4, True)


def test_a_job_file_ends_with_one_json_object(
    world: Path, first: BackfillResult, capsys: pytest.CaptureFixture[str]
) -> None:
    assert events_job.main([str(world / "plays.toml")]) == 0
    result = result_of(capsys.readouterr().out)
    assert [(one.stage, one.state) for one in result.stages] == [("events", "up to date")]
    assert result.stages[0].content == first.days[DAYS[0]].stages[0].content
    assert events_job.main([str(world / "plays.toml"), "--var", "dss=1"]) == 2
    captured = capsys.readouterr()
    result = result_of(captured.out)
    assert (result.run, result.state, result.exit_code) == (None, "failed", 2)
    assert result.failure is not None
    assert result.failure.error == "ConfigError"
    assert "did you mean 'ds'" in captured.err
