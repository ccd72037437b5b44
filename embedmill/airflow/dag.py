"""The DAG of a nightly run, and where its stages run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Protocol

from airflow.sdk import DAG, Asset, BaseOperator

from embedmill.airflow.ray_operator import RayJobOperator
from embedmill.airflow.stage_operator import EmbedmillOperator
from embedmill.stage_command import GROUPS, STAGES, stage_options

__all__ = ["Local", "RayJobs", "Runner", "SparkSubmit", "embedmill_dag"]


@dataclass(frozen=True)
class Stage:
    """What a runner is given: a stage of a run, in words of templates.

    Attributes:
        name: the stage.
        config: path or URL of the TOML.
        variables: values of `--var`.
        overrides: `section.key=value` of `--set`.
    """

    name: str
    config: str
    variables: Mapping[str, str]
    overrides: Sequence[str]


class Runner(Protocol):
    """Where stages run."""

    def task(self, stage: Stage, **kwargs: Any) -> BaseOperator:
        """The task of a stage; `kwargs` are of every operator."""
        ...


@dataclass(frozen=True)
class Local:
    """The command `embedmill` on the worker's machine.

    Attributes:
        command: its words, such as `("/opt/embedmill/bin/embedmill",)`.
        environment: variables besides those of the worker.
    """

    command: Sequence[str] = ("embedmill",)
    environment: Mapping[str, str] = field(default_factory=dict)

    def task(self, stage: Stage, **kwargs: Any) -> BaseOperator:
        """See `Runner`."""
        words = (*self.command, "run", "--json")
        return _command_task(stage, words, self.environment, kwargs)


@dataclass(frozen=True)
class SparkSubmit:
    """spark-submit on the worker's machine, in client mode: its exit code is that of the driver.

    Attributes:
        master: URL of the Spark master.
        command: words of the command.
        conf: properties of Spark.
        options: further words of spark-submit, such as `("--py-files", "embedmill.whl")`.
        job: the job file; by default that of this package.
        environment: variables besides those of the worker, such as PYSPARK_PYTHON.
    """

    master: str
    command: Sequence[str] = ("spark-submit",)
    conf: Mapping[str, str] = field(default_factory=dict)
    options: Sequence[str] = ()
    job: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    def task(self, stage: Stage, **kwargs: Any) -> BaseOperator:
        """See `Runner`."""
        conf = {"spark.sql.session.timeZone": "UTC", **self.conf}
        words = [*self.command, "--master", self.master, "--name", f"embedmill {stage.name}"]
        words += [word for key, value in conf.items() for word in ("--conf", f"{key}={value}")]
        words += [*self.options, self.job or str(files("embedmill") / "jobs" / "all.py")]
        # A job file's own folder stays off sys.path: it holds names such as index and report.
        return _command_task(stage, words, {"PYTHONSAFEPATH": "1", **self.environment}, kwargs)


@dataclass(frozen=True)
class RayJobs:
    """The Jobs API of a Ray cluster.

    Attributes:
        address: URL of its dashboard; the token is RAY_AUTH_TOKEN. Not both this and `conn_id`.
        conn_id: Airflow connection with address and token.
        python: the cluster's Python with embedmill.
        runtime_env: Ray's runtime environment of the jobs.
        driver_resources: of the driver of a stage, such as `{"entrypoint_num_cpus": 1}`.
        deferrable: wait in the triggerer, without a worker.
        poll_seconds: between two looks at a job.
    """

    address: str = ""
    conn_id: str = ""
    python: str = "python"
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    driver_resources: Mapping[str, float] = field(default_factory=dict)
    deferrable: bool = True
    poll_seconds: float = 5.0

    def task(self, stage: Stage, **kwargs: Any) -> BaseOperator:
        """See `Runner`."""
        options = stage_options(stage.config, stage.name, stage.variables, stage.overrides)
        date = "-".join(stage.variables.values())
        return RayJobOperator(
            entrypoint=[self.python, "-m", "embedmill.jobs.all", *options],
            address=self.address,
            conn_id=self.conn_id,
            # The run, not the DAG's run: whoever runs this date watches the same job.
            submission_id="-".join(filter(None, ("{{ dag.dag_id }}", date, stage.name))),
            runtime_env=self.runtime_env,
            driver_resources=self.driver_resources,
            hashed_files=[stage.config],
            deferrable=self.deferrable,
            poll_seconds=self.poll_seconds,
            **kwargs,
        )


def _command_task(
    stage: Stage, words: Sequence[str], environment: Mapping[str, str], kwargs: Mapping[str, Any]
) -> BaseOperator:
    return EmbedmillOperator(
        config=stage.config,
        stage=stage.name,
        variables=stage.variables,
        overrides=stage.overrides,
        command=words,
        environment=environment,
        **kwargs,
    )


def embedmill_dag(
    config: str,
    *,
    dag_id: str = "embedmill",
    runners: Mapping[str, Runner] | None = None,
    variables: Mapping[str, str] | None = None,
    overrides: Sequence[str] = (),
    retries: int = 3,
    task_options: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> DAG:
    """A DAG of the eight stages of a run for each date.

    One run at a time, as each continues the vocabulary of the one before. Each task updates the
    asset `embedmill://DAG_ID/STAGE`, whose events have the run, the artifact's URI and its content
    hash in `extra`. The last task publishes the run.

    Args:
        config: path or URL of the run's TOML, as the runners see it.
        dag_id: name of the DAG.
        runners: where stages run, by group ("data", "train", "finish") or stage, which goes before
            its group; `Local()` where nothing is said.
        variables: values of variables of the config; `{"ds": "{{ ds }}"}` where not given.
        overrides: `section.key=value` of `--set`.
        retries: tries after the first one, where another try may help.
        task_options: further options of every task, such as `{"retry_delay": ...}`.
        kwargs: of the DAG: `schedule`, `start_date`, `catchup` and so on.

    Raises:
        ValueError: `runners` names something else.
    """
    chosen = _runners(runners or {})
    given = {"ds": "{{ ds }}"} if variables is None else dict(variables)
    kwargs.setdefault("max_active_runs", 1)
    with DAG(dag_id, **kwargs) as dag:
        before: BaseOperator | None = None
        for name, runner in chosen.items():
            task = runner.task(
                Stage(name, config, given, overrides),
                task_id=name,
                retries=retries,
                outlets=[Asset(f"embedmill://{dag_id}/{name}")],
                **(task_options or {}),
            )
            if before is not None:
                before >> task
            before = task
    return dag


def _runners(given: Mapping[str, Runner]) -> dict[str, Runner]:
    """The runner of each stage, in order."""
    unknown = set(given) - {*GROUPS, *STAGES}
    if unknown:
        raise ValueError(f"no group or stage {sorted(unknown)}; there are {[*GROUPS, *STAGES]}")
    chosen: dict[str, Runner] = {}
    for group, stages in GROUPS.items():
        for stage in stages:
            chosen[stage] = given.get(stage) or given.get(group) or Local()
    return chosen
