"""One Sail and one local Apache Spark for all tests of the data stages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from pipeline.prepare.engine import open_session


@pytest.fixture(scope="session")
def sail() -> Iterator[SparkSession]:
    with open_session("sail") as session:
        yield session


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    with open_session("spark") as session:
        yield session
