"""Commands and webhooks of `run.on_publish` and `run.on_failure`.

Each gets the result of the run (`schemas.run.RunResult`) as JSON: a command on its stdin, a
webhook in a POST. What a command prints goes to stderr. One that fails or takes too long is warned
of, and changes nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence

from embedmill import __version__
from embedmill.jobs.observers.observer import RunEnd, expanded
from embedmill.jobs.observers.secrets import reason_of
from embedmill.pipeline.config import Config
from embedmill.pipeline.log import print_note

__all__ = ["notify"]


def notify(config: Config, end: RunEnd) -> None:
    """Call those that the end of a run concerns, one after another."""
    result = end.result
    wanted: Sequence[str] = ()
    if result.state == "failed":
        key, wanted = "run.on_failure", config.run.on_failure
    elif end.now_published:
        key, wanted = "run.on_publish", config.run.on_publish
    payload = json.dumps(result.as_json(), ensure_ascii=False).encode()
    for text in wanted:
        try:
            target = expanded(text) if text.startswith("$") else text
            if target.startswith(("http://", "https://")):
                _post(expanded(target), payload, config.observe.timeout)
            else:
                _call(text, payload, config.observe.long_timeout)
        except Exception as error:
            print_note(f"{key}: {_shown(text)}: {_reason(error, text)}")


def _post(url: str, payload: bytes, timeout: float) -> None:
    """POST in a thread: looking up a host, and an answer in drops, have no timeout of their own."""
    headers = {"Content-Type": "application/json", "User-Agent": f"embedmill/{__version__}"}
    request = urllib.request.Request(url, payload, headers, method="POST")
    errors = list[Exception]()

    def send() -> None:
        try:
            with urllib.request.urlopen(request, timeout=timeout):
                pass
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=send, name="webhook", daemon=True)
    thread.start()
    thread.join(timeout)
    if thread.is_alive():
        raise TimeoutError
    for error in errors:
        raise error


def _call(text: str, payload: bytes, timeout: float) -> None:
    """Run a command, without a shell, in a process group that ends with it."""
    words = [expanded(word) for word in shlex.split(text)]
    process = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=_stderr(), stderr=_stderr(), start_new_session=True
    )
    try:
        process.communicate(payload, timeout)
    except BrokenPipeError:
        process.wait(timeout)  # it does not read its input, which is its own affair
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words[0])


def _stderr() -> int:
    """The descriptor of stderr, so that stdout keeps the result alone."""
    try:
        return sys.stderr.fileno()
    except (OSError, ValueError):
        return 2


def _shown(text: str) -> str:
    """A command or URL as the config has it, cut short: the rest may be a secret."""
    return text if len(text) < 80 else f"{text[:77]}..."


def _reason(error: Exception, text: str) -> str:
    if isinstance(error, subprocess.TimeoutExpired):
        return "took too long, and was stopped"
    if isinstance(error, subprocess.CalledProcessError):
        return f"ended with exit code {error.returncode}"
    if isinstance(error, urllib.error.HTTPError):
        return f"answered {error.code}"
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, OSError):
        error = error.reason
    if isinstance(error, TimeoutError):
        return "did not answer in time"
    return reason_of(error, text)
