"""What the fixture `embedmill` is: the command line, called in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

# Words to exit code, output and errors.
Cli = Callable[[Sequence[str]], tuple[int, str, str]]
