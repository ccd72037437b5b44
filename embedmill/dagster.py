"""Dagster: an asset for each stage, partitioned by day, with the content hash as data version.

    from dagster import Definitions
    from embedmill.dagster import embedmill_assets

    defs = Definitions(assets=embedmill_assets("/etc/embedmill/plays.toml", start="2026-11-01"))

Imports Dagster, the standard library and no engine: install it there with
`pip install --no-deps embedmill`, and give the `embedmill` of another environment as command.
"""

# No `from __future__ import annotations`: Dagster wants the type of `context` itself.
from collections.abc import Mapping, Sequence
from typing import Any

from dagster import (
    AssetExecutionContext,
    AssetKey,
    AssetsDefinition,
    DailyPartitionsDefinition,
    DataVersion,
    Failure,
    MaterializeResult,
    MetadataValue,
    RetryRequested,
    asset,
)

from embedmill.stage_command import (
    FAIL_CODES,
    STAGES,
    Command,
    failure_of,
    last_result,
    stage_options,
)

__all__ = ["embedmill_assets"]


def embedmill_assets(
    config: str,
    *,
    start: str,
    name: str = "embedmill",
    variable: str = "ds",
    overrides: Sequence[str] = (),
    command: Sequence[str] = ("embedmill",),
    environment: Mapping[str, str] | None = None,
    retries: int = 3,
    retry_seconds: float = 600.0,
    pool: str = "embedmill",
) -> list[AssetsDefinition]:
    """Assets `NAME/STAGE` of a run for each day; each stage depends on the one before.

    A stage that has finished is not built again, and its data version stays the same: Dagster does
    not call what depends on it stale. Days continue each other's vocabularies, so set the limit of
    `pool` to one in the instance, and materialise days in their order.

    Args:
        config: path or URL of the run's TOML, as the command sees it.
        start: the first day (YYYY-MM-DD).
        name: prefix of the assets' keys, and their group.
        variable: name of the variable of the config that is given the day.
        overrides: `section.key=value` of `--set`.
        command: words of the command, such as `("/opt/embedmill/bin/embedmill",)`.
        environment: variables besides those of Dagster's process.
        retries: tries after the first one, where another try may help.
        retry_seconds: between two tries.
        pool: concurrency pool of the assets.
    """

    def build(context: AssetExecutionContext, stage: str) -> MaterializeResult[Any]:
        options = stage_options(config, stage, {variable: context.partition_key}, overrides)
        running = Command(
            [*command, "run", "--json", *options], environment or {}, context.log.info
        )
        try:
            code, output = running.wait()
        finally:
            running.stop()  # where Dagster interrupts the wait
        result = last_result(output)
        if code != 0:
            said = failure_of(code, result, f"stage '{stage}'")
            if code in FAIL_CODES:
                raise Failure(said, allow_retries=False)
            context.log.warning(said)
            raise RetryRequested(max_retries=retries, seconds_to_wait=retry_seconds)
        return _materialized(result)

    found: list[AssetsDefinition] = []
    for number, stage in enumerate(STAGES):
        found.append(
            asset(
                key=AssetKey([name, stage]),
                deps=[AssetKey([name, STAGES[number - 1]])] if number else [],
                partitions_def=DailyPartitionsDefinition(start_date=start),
                group_name=name,
                kinds={"embedmill"},
                pool=pool,
            )(_function_of(build, stage))
        )
    return found


def _function_of(build: Any, stage: str) -> Any:
    """A function of the stage's name, as Dagster makes an asset of it."""

    def materialize(context: AssetExecutionContext) -> MaterializeResult[Any]:
        return build(context, stage)

    materialize.__name__ = stage
    materialize.__doc__ = f"Stage {stage} of the run of a day."
    return materialize


def _materialized(result: Mapping[str, Any]) -> MaterializeResult[Any]:
    """Data version and metadata of a finished stage."""
    stage = result["stages"][-1]
    return MaterializeResult(
        data_version=DataVersion(stage["content"]),
        metadata={
            "run": result["run"],
            "uri": MetadataValue.path(stage["uri"]),
            "state": stage["state"],
            "seconds": stage["seconds"],
            "published": result["published"],
            "counters": MetadataValue.json(stage["counters"]),
            "metrics": MetadataValue.json(result["metrics"]),
        },
    )
