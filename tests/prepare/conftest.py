"""One Sail, one local Apache Spark and one wheel for all tests of the data stages."""

from __future__ import annotations

import threading
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
