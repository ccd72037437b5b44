"""Where the public sets are: the folder named by EMBEDMILL_DATA. README says what is in it."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def path_of(name: str) -> Path:
    """A file of a public set, such as `gowalla/checkins.tsv.gz`; ends the process without it."""
    folder = os.environ.get("EMBEDMILL_DATA", "")
    if not folder:
        sys.exit(f"EMBEDMILL_DATA is not set: it names the folder that holds {name}; see README")
    path = Path(folder) / name
    if not path.is_file():
        sys.exit(f"{path} is not there: README says where the set comes from and its columns")
    return path
