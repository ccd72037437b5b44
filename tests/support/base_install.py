"""Commands of a base install, in a process where the packages of extras cannot be imported.

    python -m tests.support.base_install COMMANDS.json

COMMANDS.json is a list of command lines. Printed is the exit code of each.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

# What `train` and `spark` install; `pyspark.core` is not in pyspark-client.
ABSENT = ("torch", "ray", "py4j", "pyspark.core")


def main() -> None:
    from embedmill.jobs.cli import main as embedmill

    for words in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        sys.argv = ["embedmill", *words]
        try:
            embedmill()
        except SystemExit as end:
            print(f"exit {end.code}: {' '.join(words)}", file=sys.stderr)


if __name__ == "__main__":
    # None in sys.modules: an import fails, and find_spec finds nothing.
    sys.modules.update(dict.fromkeys(ABSENT))  # type: ignore[arg-type]
    main()
