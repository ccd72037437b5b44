"""One Sail and one local Apache Spark for all tests of the data stages."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession
from pyspark.sql.connect.dataframe import DataFrame
from tracing import Traced

from pipeline.prepare.engine import open_session


@pytest.fixture(scope="session")
def sail() -> Iterator[SparkSession]:
    with pytest.MonkeyPatch.context() as patch, open_session("sail") as session:
        if threading.gettrace() is not None:  # coverage is measured
            plain = DataFrame.mapInArrow
            patch.setattr(
                DataFrame, "mapInArrow", lambda self, task, ddl: plain(self, Traced(task), ddl)
            )
        yield session


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    with open_session("spark") as session:
        yield session
