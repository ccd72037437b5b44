"""Where the tasks of a stage run: in this process, in several, or on Ray."""

from __future__ import annotations

from contextlib import AbstractContextManager

from embedmill.pipeline import task_pool
from embedmill.pipeline.task_pool import Launchers, TaskPool, TaskRequest

__all__ = ["LAUNCHERS"]


def _ray_tasks(request: TaskRequest) -> AbstractContextManager[TaskPool]:
    # Loading Ray takes a second.
    from embedmill.jobs.ray_tasks import ray_tasks

    return ray_tasks(request)


LAUNCHERS: Launchers = {**task_pool.LAUNCHERS, "ray": _ray_tasks}
