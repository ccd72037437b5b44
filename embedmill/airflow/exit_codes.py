"""What a task does after its command has ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from embedmill.stage_command import FAIL_CODES, failure_of

__all__ = ["raise_for", "report_assets"]


def raise_for(code: int | None, result: Mapping[str, Any], what: str) -> None:
    """Raise where a command failed.

    Args:
        code: its exit code; None where it was lost with its machine.
        result: its `RunResult`, or empty.
        what: the beginning of the message.

    Raises:
        AirflowFailException: trying again cannot help.
        AirflowException: trying again may help.
    """
    if code == 0:
        return
    error = AirflowFailException if code in FAIL_CODES else AirflowException
    raise error(failure_of(code, result, what))


def report_assets(context: Any, assets: Any, result: Mapping[str, Any]) -> None:
    """Put run, URI and content hash into the `extra` of the events of a task's assets."""
    stages = result.get("stages") or []
    if not stages:
        return
    extra = {
        "run": result["run"],
        "stage": stages[-1]["stage"],
        "uri": stages[-1]["uri"],
        "content": stages[-1]["content"],
        "published": result["published"],
    }
    for asset in assets:
        if isinstance(asset, Asset):
            context["outlet_events"][asset].extra = extra
