"""A bucket in memory behind fsspec's asynchronous calls, `s3://`, as the pipeline's client uses it.

It has the semantics of S3: whole objects that appear when a request has been answered, a request
for each, a refusal (412) to create one that exists, many removals in one request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from fsspec.asyn import AsyncFileSystem
from fsspec.registry import _registry

from tests.support.crash_points import World

__all__ = ["Bucket", "buckets_in_memory"]


class Bucket(AsyncFileSystem):
    """Objects by name; every change is told to `world`, where there is one."""

    protocol = "s3"
    objects: ClassVar[dict[str, bytes]] = {}
    world: ClassVar[World | None] = None

    @classmethod
    def copy_below(cls, old: str, new: str) -> None:
        """Copy all objects of a folder."""
        for name in [name for name in cls.objects if name.startswith(f"{old}/")]:
            cls.objects[name.replace(old, new, 1)] = cls.objects[name]

    async def _pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        path = self._strip_protocol(path)
        if mode == "create" and path in self.objects:
            raise FileExistsError(path)
        await self._tell("put", path, lambda: self.objects.update({path: bytes(value)}))

    async def _put_file(self, lpath: str, rpath: str, **_: Any) -> None:
        await self._pipe_file(rpath, Path(lpath).read_bytes())

    async def _cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_: Any
    ) -> bytes:
        path = self._strip_protocol(path)
        if path not in self.objects:
            raise FileNotFoundError(path)
        return self.objects[path][start:end]

    async def _rm_file(self, path: str, **_: Any) -> None:
        path = self._strip_protocol(path)
        await self._tell("remove", path, lambda: self.objects.pop(path, None))

    async def _rm(self, path: Any, recursive: bool = False, **_: Any) -> None:
        for one in [path] if isinstance(path, str) else path:
            start = f"{self._strip_protocol(one)}/"
            below = [name for name in self.objects if recursive and name.startswith(start)]
            for name in below or [one]:
                await self._rm_file(name)

    async def _info(self, path: str, **_: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        if path in self.objects:
            return {"name": path, "size": len(self.objects[path]), "type": "file"}
        if any(name.startswith(f"{path}/") for name in self.objects):
            return {"name": path, "size": 0, "type": "directory"}
        raise FileNotFoundError(path)

    async def _ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        path = self._strip_protocol(path)
        below = {n.removeprefix(f"{path}/").split("/")[0] for n in self.objects
                 if n.startswith(f"{path}/")}  # fmt: skip
        names = [f"{path}/{name}" for name in sorted(below)]
        return [await self._info(name) for name in names] if detail else names

    async def _tell(self, kind: str, name: str, change: Any) -> None:
        if self.world is None:
            change()
        else:  # from a thread, so that a reader that is called there may ask this loop
            await asyncio.to_thread(self.world.change, kind, name, change)


@contextmanager
def buckets_in_memory() -> Iterator[None]:
    """URLs of `s3://` are buckets in memory meanwhile."""
    before = _registry.get("s3")
    _registry["s3"] = Bucket
    try:
        yield
    finally:
        Bucket.objects.clear()
        del _registry["s3"]
        if before is not None:
            _registry["s3"] = before
