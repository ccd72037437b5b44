"""Airflow 3: a DAG with a task for each stage, by the command `embedmill`.

    from embedmill.airflow import embedmill_dag

    dag = embedmill_dag("/etc/embedmill/plays.toml", schedule="@daily", start_date=...)

Needs `apache-airflow` and nothing that embedmill itself depends on: install this package there with
`pip install --no-deps embedmill`, and give the `embedmill` of another environment as `command`.
"""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk import DAG, Asset, BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException

__all__ = ["RETRY_CODES", "STAGES", "EmbedmillOperator", "embedmill_dag"]

# As `embedmill.schemas.stages`, which a file of a DAG need not import.
STAGES = ("events", "vocab", "shards", "train", "export", "index", "evaluate", "report")
# Exit codes after which the same command may succeed: the machine or the store (7), another process
# that runs the run (8), Ctrl-C (130), SIGKILL (137), SIGTERM (143). See docs/guides/errors.md.
RETRY_CODES = frozenset({7, 8, 130, 137, 143})
_STOP_SECONDS = 60.0  # to end its workers after SIGTERM


class EmbedmillOperator(BaseOperator):  # type: ignore[misc]  # Airflow is not installed here
    """Brings one stage of a run up to date; its XCom is the JSON object of `embedmill run --json`.

    A task that is tried again goes on where the last try stopped. Errors that another try cannot
    help fail the task at once, whatever its `retries`.
    """

    template_fields: Sequence[str] = ("config", "variables", "overrides", "command")

    def __init__(
        self,
        *,
        config: str,
        stage: str,
        variables: Mapping[str, str] | None = None,
        overrides: Sequence[str] = (),
        command: Sequence[str] = ("embedmill",),
        **kwargs: Any,
    ) -> None:
        """A task.

        Args:
            config: path of the run's TOML on the worker's machine.
            stage: the stage to bring up to date; those before it must be.
            variables: values of `--var`, such as `{"ds": "{{ ds }}"}`.
            overrides: `section.key=value` of `--set`.
            command: words of the command.
            kwargs: of every operator.
        """
        super().__init__(**kwargs)
        self.config = config
        self.stage = stage
        self.variables = dict(variables or {})
        self.overrides = list(overrides)
        self.command = list(command)
        self._process: subprocess.Popen[str] | None = None

    def execute(self, context: Any) -> dict[str, Any]:
        """Run the stage.

        Raises:
            AirflowFailException: it failed, and trying again cannot help.
            AirflowException: it failed, and trying again may help.
        """
        words = [*self.command, "run", self.config, "--json", "--from", self.stage]
        words += ["--to", self.stage]
        words += [word for name, value in self.variables.items() for word in _var(name, value)]
        words += [word for override in self.overrides for word in ("--set", override)]
        self.log.info("%s", words)
        code, said = self._run(words)
        result = _result(said)
        for asset in self.outlets:
            if result.get("published") and isinstance(asset, Asset):
                report: dict[str, Any] = next(
                    (s for s in result["stages"] if s["stage"] == self.stage), {}
                )
                extra = {"run": result["run"], "uri": result["uri"], **_content(report)}
                context["outlet_events"][asset].extra = extra
        if code == 0:
            return result
        failure = result.get("failure") or {}
        said = " ".join(filter(None, (failure.get("what"), failure.get("todo"))))
        error = AirflowException if code in RETRY_CODES else AirflowFailException
        raise error(f"stage '{self.stage}' ended with exit code {code}: {said}")

    def on_kill(self) -> None:
        """Stop the command: finished stages and checkpoints are kept."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()

    def _run(self, words: Sequence[str]) -> tuple[int, str]:
        """Run a command with its stderr in the task's log; returns exit code and stdout."""
        pipe = subprocess.PIPE
        self._process = process = subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True)
        assert process.stdout is not None
        logging = threading.Thread(target=self._log, args=(process.stderr,), daemon=True)
        logging.start()
        said = process.stdout.read()
        code = process.wait()
        logging.join(_STOP_SECONDS)
        return (128 - code if code < 0 else code), said

    def _log(self, lines: Any) -> None:
        for line in lines:
            self.log.info("%s", line.rstrip())


def embedmill_dag(
    config: str,
    *,
    dag_id: str = "embedmill",
    variables: Mapping[str, str] | None = None,
    overrides: Sequence[str] = (),
    command: Sequence[str] = ("embedmill",),
    retries: int = 3,
    **kwargs: Any,
) -> DAG:
    """A DAG of the eight stages of a run for each date.

    One run at a time, as each continues the vocabulary of the one before. The last stage publishes
    the run, and updates the asset `embedmill://DAG_ID` with the run's name and content hash.

    Args:
        config: path of the run's TOML on the worker's machine.
        dag_id: name of the DAG.
        variables: values of variables of the config; `{"ds": "{{ ds }}"}` where not given.
        overrides: `section.key=value` of `--set`.
        command: words of the command, such as `("/opt/embedmill/bin/embedmill",)`.
        retries: tries after the first one, where another try may help.
        kwargs: of the DAG: `schedule`, `start_date`, `catchup` and so on.
    """
    given = {"ds": "{{ ds }}"} if variables is None else variables
    kwargs.setdefault("max_active_runs", 1)
    with DAG(dag_id, **kwargs) as dag:
        before: EmbedmillOperator | None = None
        for stage in STAGES:
            task = EmbedmillOperator(
                task_id=stage,
                config=config,
                stage=stage,
                variables=given,
                overrides=overrides,
                command=command,
                retries=retries,
                outlets=[Asset(f"embedmill://{dag_id}")] if stage == STAGES[-1] else [],
            )
            if before is not None:
                before >> task
            before = task
    return dag


def _var(name: str, value: str) -> tuple[str, str]:
    return "--var", f"{name}={value}"


def _result(said: str) -> dict[str, Any]:
    """The JSON object on the last line of the command's output; empty where there is none."""
    try:
        result = json.loads(said.splitlines()[-1])
    except (ValueError, IndexError):
        return {}
    return result if isinstance(result, dict) else {}


def _content(stage: Mapping[str, Any]) -> dict[str, Any]:
    return {"content": stage["content"]} if "content" in stage else {}
