"""Section observe: who is told of stages and results."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from embedmill.pipeline.config.section import NOT_IN_FINGERPRINT, Section, one_or_many

__all__ = ["ObserveConfig"]

_Name = Literal["openlineage", "prometheus", "opentelemetry", "mlflow"]


_Observers = Annotated[
    tuple[_Name, ...],
    BeforeValidator(one_or_many, json_schema_input_type=_Name | tuple[_Name, ...]),
]


class ObserveConfig(Section):
    """Who is told of stages and results. One that fails, hangs or is not installed is left out.

    Values may name variables of the environment, such as `$PUSHGATEWAY`: a URL with a password
    or token stands there, as the config is stored with the run.
    """

    observers: _Observers = Field(
        (),
        json_schema_extra=NOT_IN_FINGERPRINT,
        description="openlineage, prometheus, opentelemetry, mlflow: one or several",
    )
    lineage: str = Field(
        "",
        json_schema_extra=NOT_IN_FINGERPRINT,
        description="file or http(s) URL that OpenLineage events go to; empty: as OPENLINEAGE_URL "
        "or openlineage.yml say",
    )
    namespace: str = Field(
        "embedmill",
        min_length=1,
        json_schema_extra=NOT_IN_FINGERPRINT,
        description="namespace of the jobs in OpenLineage",
    )
    metrics: str = Field(
        "",
        json_schema_extra=NOT_IN_FINGERPRINT,
        description="folder of Prometheus' textfile collector, or http(s) URL of a Pushgateway",
    )
    model: str = Field(
        "",
        json_schema_extra=NOT_IN_FINGERPRINT,
        description="name in MLflow's registry under which a published run is registered, with "
        "vectors and index; empty: only its metrics are logged",
    )
    timeout: float = Field(
        10.0,
        gt=0,
        le=86_400,
        allow_inf_nan=False,
        json_schema_extra=NOT_IN_FINGERPRINT,
        description="seconds that the end of a run waits for observers, and a webhook may take",
    )
    long_timeout: float = Field(
        600.0,
        gt=0,
        le=86_400,
        allow_inf_nan=False,
        json_schema_extra=NOT_IN_FINGERPRINT,
        description="the same for the upload of a model, and for a command of run.on_publish or "
        "run.on_failure",
    )
