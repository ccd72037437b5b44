"""What `list` and `status` print of runs: a table, and what a run's driver did last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from embedmill.pipeline.errors import EmbedmillError
from embedmill.schemas.run import RunState, RunSummary
from embedmill.schemas.stages import STAGES

__all__ = ["print_runs", "print_state"]


def print_state(state: RunState) -> None:
    """What the driver of a run did last, where it did not end well."""
    process = f"process {state.pid} on {state.host}"
    if state.failure is not None:
        failure = state.failure
        again = "running it again may help" if failure.retry else "running it again will not help"
        error = EmbedmillError(failure.what, where=failure.where, todo=failure.todo)
        line = f"{state.state} at {state.updated} (exit code {failure.exit_code}, {again}): {error}"
    else:
        line = f"{state.state}: {state.stage}, since {state.updated}, {process}"
    Console(highlight=False).print(Text(line), soft_wrap=True)


def print_runs(runs: Sequence[RunSummary]) -> None:
    """Runs below a root, newest first, with a metric or two."""
    shown = dict.fromkeys(name for run in runs for name in _listed(run.metrics))
    table = Table(box=None, pad_edge=False)
    table.add_column("run", overflow="fold")
    for column in ("for", "state", "finished"):
        table.add_column(column, no_wrap=True)
    for name in shown:
        table.add_column(name, justify="right")
    table.add_column("")
    for run in runs:
        figures = (f"{run.metrics[n]:.4f}" if n in run.metrics else "" for n in shown)
        state = (
            run.state if run.stages == len(STAGES) else f"{run.state} {run.stages}/{len(STAGES)}"
        )
        gates = f"failed: {', '.join(run.failed_gates)}" if run.failed_gates else ""
        table.add_row(
            run.run, run.date, state, run.finished[:16], *figures,
            "published" if run.published else gates,
        )  # fmt: skip
    Console(highlight=False).print(table)


def _listed(metrics: Mapping[str, float]) -> list[str]:
    """The names of the metrics that `list` shows: one at the shortest list, or of ratings."""
    recall = [name for name in metrics if name.startswith("recall@")][:1]
    return [name for name in (*recall, "rmse") if name in metrics]
