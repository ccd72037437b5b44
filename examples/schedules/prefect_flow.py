"""A night's run on Prefect 3: `python prefect_flow.py plays.toml 2026-11-22` runs it once."""

import json
import subprocess
import sys

from prefect import flow, task

STAGES = ("events", "vocab", "shards", "train", "export", "index", "evaluate", "report")
RETRY_CODES = {7, 8, 130, 137, 143}  # docs/guides/errors.md


class RetryError(Exception):
    """Trying again may help."""


@task(retries=3, retry_delay_seconds=600, retry_condition_fn=lambda task, run, state: may(state))
def stage(config: str, day: str, name: str) -> dict:
    words = ["embedmill", "run", config, "--var", f"ds={day}", "--from", name, "--to", name]
    done = subprocess.run([*words, "--json"], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        error = RetryError if done.returncode in RETRY_CODES else RuntimeError
        raise error(f"stage '{name}' ended with exit code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def may(state) -> bool:
    return isinstance(state.result(raise_on_failure=False), RetryError)


@flow
def night(config: str, day: str) -> dict:
    result = {}
    for name in STAGES:
        result = stage(config, day, name)
    return result


if __name__ == "__main__":
    night(*sys.argv[1:3])
