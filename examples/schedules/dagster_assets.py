"""A night's run on Dagster: `dagster dev --python-file dagster_assets.py` shows it."""

import os

from dagster import Definitions, build_schedule_from_partitioned_job, define_asset_job

from embedmill.dagster import embedmill_assets

assets = embedmill_assets(
    os.environ.get("EMBEDMILL_CONFIG", "/etc/embedmill/plays.toml"),
    start="2026-11-01",
    name="plays",
    command=[os.environ.get("EMBEDMILL", "embedmill")],
)
night = define_asset_job("night", selection=assets)
defs = Definitions(
    assets, [build_schedule_from_partitioned_job(night, hour_of_day=3)], jobs=[night]
)
