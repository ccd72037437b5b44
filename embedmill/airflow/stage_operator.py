"""A stage as an Airflow task, by a command on the worker's machine: `embedmill` or spark-submit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from embedmill.airflow.exit_codes import raise_for, report_assets
from embedmill.stage_command import Command, last_result, stage_options

__all__ = ["EmbedmillOperator"]


class EmbedmillOperator(BaseOperator):  # type: ignore[misc]  # Airflow is not installed here
    """Brings one stage of a run up to date; its XCom is the JSON object of `embedmill run --json`.

    A task that is tried again goes on where the last try stopped. Errors that another try cannot
    help fail the task at once, whatever its `retries`.
    """

    template_fields: Sequence[str] = ("config", "variables", "overrides", "command", "environment")

    def __init__(
        self,
        *,
        config: str,
        stage: str,
        variables: Mapping[str, str] | None = None,
        overrides: Sequence[str] = (),
        command: Sequence[str] = ("embedmill", "run", "--json"),
        environment: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        """A task.

        Args:
            config: path or URL of the run's TOML, as the command sees it.
            stage: the stage to bring up to date; those before it must be.
            variables: values of `--var`, such as `{"ds": "{{ ds }}"}`.
            overrides: `section.key=value` of `--set`.
            command: words before the config; what it prints last is the JSON object.
            environment: variables besides those of the worker.
            kwargs: of every operator.
        """
        super().__init__(**kwargs)
        self.config = config
        self.stage = stage
        self.variables = dict(variables or {})
        self.overrides = list(overrides)
        self.command = list(command)
        self.environment = dict(environment or {})
        self._running: Command | None = None

    def execute(self, context: Any) -> dict[str, Any]:
        """Run the stage; returns the `RunResult`.

        Raises:
            AirflowFailException: it failed, and trying again cannot help.
            AirflowException: it failed, and trying again may help.
        """
        options = stage_options(self.config, self.stage, self.variables, self.overrides)
        words = [*self.command, *options]
        self.log.info("%s", words)
        try:
            self._running = Command(words, self.environment, partial(self.log.info, "%s"))
        except FileNotFoundError as error:
            raise AirflowFailException(f"no command '{words[0]}' on this worker") from error
        code, output = self._running.wait()
        result = last_result(output)
        raise_for(code, result, f"stage '{self.stage}'")
        report_assets(context, self.outlets, result)
        return result

    def on_kill(self) -> None:
        """Stop the command: finished stages and checkpoints are kept."""
        if self._running is not None:
            self._running.stop()
