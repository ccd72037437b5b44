from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedmill.pipeline.store.run import Run
from tests.support.report_world import ReportWorld, build


@pytest.fixture
def built(tmp_path: Path) -> Callable[..., Run]:
    """Writes a world and builds its report; keywords beside `world` are the report's config."""

    def make(world: ReportWorld | None = None, **config: Any) -> Run:
        return build((world or ReportWorld()).write(tmp_path, **config))

    return make
