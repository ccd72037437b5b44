"""Files of a run beside its artifacts, and of the folder that runs lie in."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from embedmill.schemas.files import JsonFile, Stored

__all__ = ["CONFIG", "MANIFEST", "PUBLISHED", "Published"]

# Written last in the folder of an artifact: see `embedmill.schemas.manifest`.
MANIFEST = "manifest.json"
# The run's resolved config.
CONFIG = "config.json"


class Published(Stored):
    """The run that passed its gates last.

    `run` is its name. `base_run` is the folder of the run whose vocabulary it continues, absent
    where it began one. `content` is the hash of `stages`, the content hashes of its artifacts by
    stage. `published` is when it was published (ISO 8601, UTC).
    """

    format: Literal[1] = 1
    run: str
    base_run: str | None = Field(
        default=None, alias="continues", exclude_if=lambda value: value is None
    )
    content: str
    stages: dict[str, str]
    published: str


# In the folder of all runs: which of them was published last.
PUBLISHED = JsonFile("published.json", Published)
