"""One Sail, one local Apache Spark and one wheel for all tests of the data stages."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql.connect.dataframe import DataFrame

from embedmill.pipeline.prepare.engine.connection import open_session
from tests.support.tracing import Traced

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def sail() -> Iterator[SparkSession]:
    with pytest.MonkeyPatch.context() as patch, open_session("sail") as session:
        if threading.gettrace() is not None:  # coverage is measured
            plain = DataFrame.mapInArrow

            def traced(frame: DataFrame, task: Any, ddl: Any) -> Any:
                # A Connect server's tasks are in other processes, which know nothing of tests.
                own = frame.sparkSession is session  # type: ignore[comparison-overlap]
                return plain(frame, Traced(task) if own else task, ddl)

            patch.setattr(DataFrame, "mapInArrow", traced)
        yield session


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    with open_session("spark") as session:
        yield session


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this repository, its version marked so that a test knows it was used."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("embedmill", "pipeline", "jobs", "schemas"):
        shutil.copytree(REPOSITORY / name, source / name, symlinks=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source / name)
    init = source / "embedmill" / "__init__.py"
    text = init.read_text()
    version = tomllib.loads((source / "pyproject.toml").read_text())["project"]["version"]
    assert f'"{version}"' in text
    init.write_text(text.replace(f'"{version}"', '"shipped"'))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*command, str(source)], check=True, capture_output=True)
    return next(folder.glob("*.whl"))
