"""A night's run on Prefect 3: `python prefect_flow.py plays.toml 2026-11-22` runs it once."""

import json
import os
import subprocess
import sys

from prefect import flow, task

STAGES = ("events", "vocab", "shards", "train", "export", "index", "evaluate", "report")
RETRY_CODES = {7, 8, 130, 137, 143}  # docs/guides/errors.md
COMMAND = os.environ.get("EMBEDMILL", "embedmill")
PAUSE = float(os.environ.get("EMBEDMILL_PAUSE", "600"))  # seconds


class RetryError(Exception):
    """Trying again may help."""


def may_help(_task, _run, state) -> bool:
    return isinstance(state.result(raise_on_failure=False), RetryError)


@task(retries=3, retry_delay_seconds=PAUSE, retry_condition_fn=may_help)
def stage(config: str, day: str, name: str) -> dict:
    words = [COMMAND, "run", config, "--var", f"ds={day}", "--from", name, "--to", name]
    done = subprocess.run([*words, "--json"], stdout=subprocess.PIPE, text=True, check=False)
    code = 128 - done.returncode if done.returncode < 0 else done.returncode
    if code:
        error = RetryError if code in RETRY_CODES else RuntimeError
        raise error(f"stage '{name}' ended with exit code {code}")
    return json.loads(done.stdout.splitlines()[-1])


@flow
def night(config: str, day: str) -> dict:
    result = {}
    for name in STAGES:
        result = stage(config, day, name)
    return result


if __name__ == "__main__":
    night(*sys.argv[1:3])
