"""The `report` artifact: the page, and the figures on it."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from embedmill.pipeline.store.artifact import Artifact
from embedmill.schemas.report import DATA, PAGE, ReportData

__all__ = ["Report"]


@dataclass(frozen=True)
class Report:
    """A finished report."""

    artifact: Artifact

    @functools.cached_property
    def data(self) -> ReportData:
        """The figures on the page that depend on the log and the config alone."""
        return self.artifact.read_json(DATA)

    @property
    def page_url(self) -> str:
        """Where the page is."""
        return self.artifact.url(PAGE)
