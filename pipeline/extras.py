"""Packages that only an extra installs: which one, and the sentence that says so."""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from embedmill.pipeline.errors import MissingPackageError

__all__ = ["check_installed", "naming_extras"]

# Package → the extra that installs it.
_EXTRAS = {"torch": "train", "ray": "train", "py4j": "spark", "cryptography": "sign"}


def check_installed(package: str, needed_by: str) -> None:
    """Check that a package can be imported.

    Args:
        package: the top-level name of one that only an extra installs.
        needed_by: the stage, command or config key that needs it.

    Raises:
        MissingPackageError: with the command that installs it.
    """
    if importlib.util.find_spec(package) is None:
        raise _missing(package, needed_by)


@contextmanager
def naming_extras(needed_by: str) -> Iterator[None]:
    """Name the extra where the block imports a package that is not installed.

    Raises:
        MissingPackageError: with the command that installs it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in {*_EXTRAS, "pysail"}:
            raise
        raise _missing(package, needed_by) from error


def _missing(package: str, needed_by: str) -> MissingPackageError:
    if package == "pysail":  # a dependency wherever it has a wheel
        return MissingPackageError(
            f"Sail is not installed: it has no wheel for {sys.platform} on {platform.machine()}",
            where=needed_by,
            todo="Set run.engine = 'spark' and  pip install 'embedmill[spark]'",
        )
    return MissingPackageError(
        f"{package} is not installed",
        where=needed_by,
        todo=f"pip install 'embedmill[{_EXTRAS[package]}]'",
    )
