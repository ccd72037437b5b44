"""Where the public sets are: the folder named by EMBEDMILL_DATA. README says what is in it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

# Debian's package of Fashion-MNIST (MIT): pinned, its files where it puts them.
DEBIAN = "dataset-fashion-mnist=0.0~git20200523.55506a9-1"
SHA256 = "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0"
INSTALLED = "usr/share/datasets/fashion-mnist"


def path_of(name: str) -> Path:
    """A file of a public set, such as `gowalla/checkins.tsv.gz`; ends the process without it."""
    folder = os.environ.get("EMBEDMILL_DATA", "")
    if not folder:
        sys.exit(f"EMBEDMILL_DATA is not set: it names the folder that holds {name}; see README")
    path = Path(folder) / name
    if not path.is_file():
        sys.exit(f"{path} is not there: README says where the set comes from and its columns")
    return path


def fashion_mnist(name: str) -> Path:
    """A file of Fashion-MNIST: from EMBEDMILL_DATA, as Debian installs it, or out of its package.

    The package is fetched by apt without installing it, checked, and its files are cached.
    """
    cache = Path(os.environ.get("EMBEDMILL_CACHE") or Path.home() / ".cache" / "embedmill")
    cache /= f"fashion-mnist/{SHA256[:16]}"
    given = Path(os.environ.get("EMBEDMILL_DATA") or cache) / "fashion-mnist"
    for folder in (given, Path("/") / INSTALLED, cache / INSTALLED):
        if (folder / name).is_file():
            return folder / name
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        command = ["apt-get", "-o", "APT::Sandbox::User=root", "download", DEBIAN]
        subprocess.run(command, cwd=scratch, check=True, stdout=sys.stderr)
        (package,) = Path(scratch).glob("*.deb")
        found = hashlib.sha256(package.read_bytes()).hexdigest()
        if found != SHA256:
            sys.exit(f"{package.name}: sha256 is {found}, expected {SHA256}; nothing was taken")
        subprocess.run(["dpkg-deb", "-x", str(package), str(cache)], check=True)
    return cache / INSTALLED / name
