"""The images and the compose file against the scripts; the scripts for real, without Docker."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from embedmill.pipeline.config import to_toml
from embedmill.pipeline.store.run import open_run
from embedmill.schemas.stages import STAGES
from tests.support import worlds

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
SCRIPTS = sorted(DOCKER.glob("*.sh"))


def instructions() -> list[str]:
    text = (DOCKER / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return "\n".join(lines).replace("\\\n", " ").splitlines()


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_bash_and_stop_at_the_first_error(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    if script.name != "settings.sh":
        assert os.access(script, os.X_OK)
        lines = script.read_text().splitlines()
        assert lines[0] == "#!/usr/bin/env bash"
        assert "set -euo pipefail" in lines


def test_what_the_dockerfile_copies_is_there_and_not_ignored() -> None:
    kept = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = []
    for line in instructions():
        if line.startswith("COPY") and "--from" not in line:
            copied += line.split()[1:-1]
    assert "constraints.txt" in copied
    for pattern in copied:
        assert list(ROOT.glob(pattern.rstrip("/"))), pattern
        assert pattern.split("/")[0] in kept


def test_images_run_as_the_user_they_make() -> None:
    lines = instructions()
    targets = {m[1]: i for i, one in enumerate(lines) if (m := re.match(r"FROM .* AS (\w+)", one))}
    assert {"spark", "ray"} <= targets.keys()
    made = next(m[1] for one in lines if (m := re.search(r"useradd .* (\w+) &&", one)))
    for target in ("spark", "ray"):
        stage = lines[targets[target] + 1 :]
        stage = stage[: next((i for i, one in enumerate(stage) if one.startswith("FROM")), None)]
        users = [one.split()[1] for one in stage if one.startswith("USER")]
        assert users[-1:] == [made]
        assert stage[-1].startswith("CMD")


def test_every_service_runs_a_script_of_the_image(compose: Any) -> None:
    targets = {line.split()[-1] for line in instructions() if line.startswith("FROM")}
    for name, service in compose["services"].items():
        assert service["build"]["target"] in targets
        assert (DOCKER / service["command"][0]).exists(), name
        assert (DOCKER / "compose.yaml").parent.joinpath(service["build"]["context"]).exists()
        assert (ROOT / service["build"]["dockerfile"]).exists()


def test_every_service_sees_runs_and_configs_under_one_path(compose: Any) -> None:
    volumes = {tuple(service["volumes"]) for service in compose["services"].values()}
    assert len(volumes) == 1
    (named,) = compose["volumes"]
    assert f"{named}:/runs" in next(iter(volumes))
    config = compose["services"]["line"]["command"][1]
    assert (ROOT / "examples" / Path(config).name).exists()


def test_services_listen_where_the_scripts_look_for_them(compose: Any) -> None:
    settings = (DOCKER / "settings.sh").read_text()
    defaults = dict(re.findall(r"(\w+)=\$\{\1:-(.*)\}", settings))
    services = compose["services"]
    master, port = defaults["SPARK_MASTER"].removeprefix("spark://").split(":")
    assert services[master]["hostname"] == master
    assert services[master]["healthcheck"]["test"] == ["CMD", "healthy.sh", master, port]
    assert f"SPARK_PORT:-{port}" in (DOCKER / "start-spark-master.sh").read_text()
    head, port = defaults["RAY_JOBS"].removeprefix("http://").split(":")
    assert services[head]["healthcheck"]["test"] == ["CMD", "healthy.sh", head, port]
    assert defaults["RAY_HEAD"].startswith(f"{head}:")


def test_ports_are_published_on_loopback_alone_and_ray_needs_its_token(compose: Any) -> None:
    for name, service in compose["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        if name.startswith("ray") or name == "line":
            assert service["environment"]["RAY_AUTH_TOKEN"].startswith("${RAY_AUTH_TOKEN:?")


def test_variables_that_compose_sets_are_read_by_a_script(compose: Any) -> None:
    text = "".join(script.read_text() for script in SCRIPTS)
    for service in compose["services"].values():
        for name in service.get("environment", {}):
            assert f"${{{name}:" in text


def test_workers_are_asked_where_they_listen(compose: Any) -> None:
    services = compose["services"]
    (port,) = services["spark-worker"]["healthcheck"]["test"][3:]
    assert f"SPARK_UI_PORT:-{port}" in (DOCKER / "start-spark-worker.sh").read_text()
    port = services["ray-worker"]["healthcheck"]["test"][1].split()[-1]
    assert f"RAY_NODE_PORT:-{port}" in (DOCKER / "start-ray-worker.sh").read_text()


def test_a_bill_of_materials_has_what_is_installed(tmp_path: Path) -> None:
    made = [tmp_path / name for name in ("one.json", "other.json")]
    for path in made:
        subprocess.run([sys.executable, DOCKER / "write_sbom.py", path], check=True)
    assert made[0].read_bytes() == made[1].read_bytes()
    document = json.loads(made[0].read_text())
    by_name = {one["name"]: one for one in document["components"]}
    assert by_name["pyarrow"]["purl"] == f"pkg:pypi/pyarrow@{version('pyarrow')}"
    edges = {one["ref"]: one["dependsOn"] for one in document["dependencies"]}
    assert by_name["pydantic_core"]["bom-ref"] in edges[by_name["pydantic"]["bom-ref"]]
    assert edges.keys() == {one["bom-ref"] for one in document["components"]}


def test_requirements_follow_extras_that_name_others(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "mill"\ndependencies = ["a>=1"]\n'
        '[project.optional-dependencies]\nb = ["b[c]==2"]\nd = ["d"]\nall = ["mill[b,d]", "e"]\n'
    )
    command = [sys.executable, DOCKER / "requirements.py", tmp_path / "pyproject.toml"]
    for extras, expected in {"": ["a>=1"], "all": ["a>=1", "b[c]==2", "d", "e"]}.items():
        printed = subprocess.run([*command, extras], check=True, capture_output=True, text=True)
        assert sorted(printed.stdout.split()) == expected


def test_healthy_tells_a_port_that_listens_from_one_that_does_not() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        assert subprocess.run([DOCKER / "healthy.sh", "127.0.0.1", port]).returncode == 0
    assert subprocess.run([DOCKER / "healthy.sh", "127.0.0.1", port]).returncode != 0


@pytest.mark.parametrize("script", ["start-ray-head.sh", "start-ray-worker.sh"])
def test_ray_does_not_start_without_a_token(script: str) -> None:
    without = {k: v for k, v in os.environ.items() if k != "RAY_AUTH_TOKEN"}
    answer = subprocess.run(
        [DOCKER / script], env=without, capture_output=True, text=True, check=False
    )
    assert answer.returncode != 0
    assert "RAY_AUTH_TOKEN" in answer.stderr


@pytest.mark.exhaustive
@pytest.mark.spark
@pytest.mark.ray
def test_the_line_on_a_spark_and_a_ray_cluster(tmp_path: Path) -> None:
    log = worlds.PlantedWorld(users=20, items=12).write(tmp_path / "log.tsv")
    config = worlds.config(
        tmp_path / "runs",
        log,
        run={"partitions": 2},
        train={"launcher": "ray", "workers": 2, "epochs": 1, "dim": 4},
    )
    path = tmp_path / "run.toml"
    path.write_text(to_toml(config))
    environment = os.environ | {"EMBEDMILL_PREFIX": sys.prefix, "SPARK_SHUFFLE": "2"}
    environment["JAVA_TOOL_OPTIONS"] = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"  # starts sooner
    answer = subprocess.run(
        [DOCKER / "check.sh", path], env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout[-3000:] + answer.stderr[-3000:]
    assert "check: the line is done" in answer.stdout
    run = open_run(str(tmp_path / "runs" / "tiny"))
    for stage in STAGES:
        assert list(run.artifact(stage).verify()) == []
    # Train ran on the cluster, on both of its nodes: each has one CPU, the config asks for two.
    assert re.search(r"Job '\w+' succeeded", answer.stdout + answer.stderr)
