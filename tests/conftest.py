"""Fixtures that every room shares."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import embedmill.jobs  # sets what gRPC reads when a test's module imports it
from embedmill.jobs import cli
from tests.support.commands import Cli

ROOT = Path(__file__).parents[1]


def java_problem() -> str:
    """Why Apache Spark cannot start here, or '' where it can."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if not java or not Path(java).exists():
        return "no JVM on this machine: Apache Spark tests need Java 17 or 21 (JAVA_HOME or PATH)"
    answer = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    return "" if answer.returncode == 0 else f"{java} does not run: {answer.stderr.strip()}"


def browser_path() -> str:
    """Path of a Chromium, or '' where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((p for n in names if (p := shutil.which(n))), "")


def gpus() -> int:
    """CUDA devices of this machine."""
    try:
        import torch
    except ImportError:
        return 0
    return torch.cuda.device_count()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Two processes take whole files in this order: those that wait long go first.
    slow = {item.path for item in items if any(map(item.get_closest_marker, ("ray", "spark")))}
    items.sort(key=lambda item: item.path not in slow)
    java = java_problem()
    chromium = browser_path()
    for item in items:
        if java and item.get_closest_marker("spark"):
            item.add_marker(pytest.mark.skip(reason=java))
        if item.get_closest_marker("gpu") and not gpus():
            item.add_marker(pytest.mark.skip(reason="no GPU on this machine"))
        if not chromium and item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.skip(reason="no Chromium on this machine"))


@pytest.fixture
def embedmill(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Call the command; returns exit code, output and errors."""

    def call(words: Sequence[str]) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["embedmill", *map(str, words)])
        monkeypatch.setenv("COLUMNS", "80")
        with pytest.raises(SystemExit) as stop:
            cli.main()
        said = capsys.readouterr()
        return int(stop.value.code or 0), said.out, said.err

    return call


@pytest.fixture(scope="session", autouse=True)
def isolated_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A HOME of the tests: Ray writes a token there."""
    home = tmp_path_factory.mktemp("home")
    before = {k: os.environ.get(k) for k in ("HOME", "EMBEDMILL_CACHE")}
    cache = before["EMBEDMILL_CACHE"] or str(Path.home() / ".cache" / "embedmill")
    os.environ |= {"HOME": str(home), "EMBEDMILL_CACHE": cache}
    yield home
    for key, value in before.items():
        if value is None:
            os.environ.pop(key, None)
        else:
            os.environ[key] = value


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this repository, its version marked so that a test knows it was used."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("embedmill", "examples", "pipeline", "jobs", "schemas"):
        shutil.copytree(ROOT / name, source / name, symlinks=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    init = source / "embedmill" / "__init__.py"
    text = init.read_text()
    version = tomllib.loads((source / "pyproject.toml").read_text())["project"]["version"]
    assert f'"{version}"' in text
    init.write_text(text.replace(f'"{version}"', '"shipped"'))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*command, str(source)], check=True, capture_output=True)
    return next(folder.glob("*.whl"))
