"""What must not get into a log: what came from the environment, and credentials in URLs."""

from __future__ import annotations

import re

__all__ = ["reason_of"]

_IN_URL = re.compile(r"(://)[^/@\s]+@")
_HIDDEN = r"\1***@"


def reason_of(error: BaseException, configured: str = "") -> str:
    """An error in a line that may be logged.

    Args:
        error: of a library, whose message may hold the URL that it was given.
        configured: the config key's value that the URL came from; where it names variables of the
            environment, the message is left out.
    """
    kind = type(error).__name__
    if "$" in configured:
        said = error.strerror or "" if isinstance(error, OSError) else ""
    else:
        said = str(error).strip().split("\n")[0]
    return f"{kind}: {_IN_URL.sub(_HIDDEN, said)}" if said else kind
