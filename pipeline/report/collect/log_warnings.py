"""What in a log looks as if the config reads it wrongly: for the notes of a profile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from embedmill.pipeline.config import EventsConfig
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.views.vocabulary import Vocabulary
from embedmill.schemas.report import RejectReason

__all__ = ["NULL_SPELLINGS", "log_warnings"]

# How databases, pandas, R, spreadsheets and programs write a value that is missing.
NULL_SPELLINGS = (
    "\\N", "NULL", "null", "Null", "(null)", "<null>", "None", "none", "nil", "NaN", "nan", "NA",
    "<NA>", "N/A", "n/a", "#N/A", "undefined", "-", "?",
)  # fmt: skip


def log_warnings(
    artifacts: Mapping[str, Artifact], rejects: Sequence[RejectReason], config: EventsConfig
) -> Iterator[str]:
    """A sentence for each thing that may be read wrongly.

    Args:
        artifacts: finished stages by name.
        rejects: as `rejected_lines` gives them.
        config: of the log.
    """
    if "vocab" in artifacts:
        for side in ("users", "items"):
            found = _null_ids(artifacts["vocab"], side)
            if found:
                shown = ", ".join(f"'{one}'" for one in found)
                yield (
                    f"Among the ids of {side} are {shown}: if these mean that there is no id, name "
                    "them in events.null_values."
                )
    if config.format not in ("jsonl", "parquet") and not config.escape:
        yield from _escapes(rejects)


def _null_ids(vocab: Artifact, side: str) -> list[str]:
    """The ids of a side that are spellings of a missing value."""
    spellings = np.array(NULL_SPELLINGS, object)
    rows = Vocabulary.of(vocab, side).rows_of(pa.array(NULL_SPELLINGS, pa.string()))
    found: list[str] = spellings[rows >= 0].tolist()
    return found


def _escapes(rejects: Sequence[RejectReason]) -> Iterator[str]:
    """Whether rejected lines have quotes with a backslash before them."""
    marked = [
        f"{one.count:,} '{one.reason}'"
        for one in rejects
        if one.reason in ("quote", "columns")
        and any('\\"' in example.raw for example in one.examples)
    ]
    if marked:
        yield (
            f'Lines rejected as {" and ".join(marked)} have \\" in them: if a backslash stands '
            "before quotes inside of fields, as in Spark's CSV, set events.escape = '\\'."
        )
