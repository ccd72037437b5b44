"""The Python environment that Spark's executors need, as an archive for `spark-submit --archives`.

    python docker/pack_environment.py environment.tar.gz [DISTRIBUTION ...]

Packed is what the data stages import, from the environment that runs this, so driver and tasks
agree on every version: our packages and a few others, without torch, Ray and FAISS (130 MB
instead of a gigabyte). Name further distributions, such as s3fs, for what else the tasks open.
The nodes need Python itself at the same path as here. The name must end with .tar.gz or .tgz:
Spark unpacks others without links and permissions.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tarfile
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement

PACKAGES = ("embedmill",)
# PySpark comes with Spark. `rich` and `pandas` are for a driver that runs on the cluster too.
NEEDED = ("duckdb", "fsspec", "numpy", "pandas", "pyarrow", "pydantic", "rich", "zstandard")
SITE = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
_LEFT_OUT = {"__pycache__", "tests", "include"}


def main() -> None:
    """Pack what the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("archive", type=Path, help="environment.tar.gz")
    parser.add_argument("distributions", nargs="*", help="to pack besides")
    parser.add_argument("--level", type=int, default=6, help="of compression, 0 to 9")
    args = parser.parse_args()
    if not args.archive.name.endswith((".tar.gz", ".tgz")):
        parser.error("the archive's name must end with .tar.gz or .tgz")
    needed = with_requirements([*NEEDED, *args.distributions])
    with tarfile.open(args.archive, "w:gz", compresslevel=args.level) as tar:
        add_python(tar)
        for name, path in [*files_of_packages(), *files_of(needed)]:
            tar.add(path, f"{SITE}/{name}")
    print(f"{args.archive}: {args.archive.stat().st_size / 1e6:,.0f} MB")


def with_requirements(names: list[str]) -> list[Distribution]:
    """The distributions, and what they require, each once."""
    found: dict[str, Distribution] = {}
    while names:
        one = distribution(names.pop())
        if one.name in found:
            continue
        found[one.name] = one
        for text in one.requires or []:
            needs = Requirement(text)
            if needs.marker is None or needs.marker.evaluate({"extra": ""}):
                names.append(needs.name)
    return [found[name] for name in sorted(found)]


def files_of(distributions: list[Distribution]) -> Iterator[tuple[str, Path]]:
    """Names below site-packages and paths of installed files."""
    for one in distributions:
        for file in one.files or []:
            path = Path(str(one.locate_file(file)))
            if file.parts[0] != ".." and not _LEFT_OUT & set(file.parts) and path.exists():
                yield file.as_posix(), path


def files_of_packages() -> Iterator[tuple[str, Path]]:
    """The same of our packages, wherever they are imported from."""
    for name in PACKAGES:
        spec = find_spec(name)
        assert spec is not None
        for folder in spec.submodule_search_locations or []:
            # In a clone some folders of the package are links, which rglob does not follow.
            for parent, folders, files in os.walk(folder, followlinks=True):
                folders.sort()
                for path in (Path(parent, file) for file in sorted(files)):
                    file = path.relative_to(Path(folder).parent)
                    if not _LEFT_OUT & set(file.parts):
                        yield file.as_posix(), path


def add_python(tar: tarfile.TarFile) -> None:
    """A link to this Python and the file that makes the archive an environment of it."""
    base = Path(sys._base_executable).resolve()  # type: ignore[attr-defined]
    link = tarfile.TarInfo("bin/python")
    link.type, link.linkname = tarfile.SYMTYPE, str(base)
    tar.addfile(link)
    text = f"home = {base.parent}\ninclude-system-site-packages = false\n".encode()
    config = tarfile.TarInfo("pyvenv.cfg")
    config.size = len(text)
    tar.addfile(config, io.BytesIO(text))


if __name__ == "__main__":
    main()
