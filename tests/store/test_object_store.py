"""Object stores: what is read and written in how many requests, and what is said when one fails."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError
from s3fs import S3FileSystem
from s3fs.errors import translate_boto_error

from embedmill.pipeline.config import to_toml
from embedmill.pipeline.errors import InputError, MachineError
from embedmill.pipeline.store.object_store import BLOCK
from embedmill.pipeline.store.sources import find_sources, open_source
from embedmill.pipeline.store.storage import ExistsError, Storage
from embedmill.pipeline.store.store_errors import kind_of, store_error
from tests.support.commands import Cli
from tests.support.s3_server import S3Server, serving
from tests.support.worlds import PlantedWorld, config


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def bucket(server: S3Server) -> str:
    return server.bucket("bucket")


@pytest.fixture
def counted(server: S3Server, bucket: str) -> Iterator[S3Server]:
    server.fail()
    yield server
    server.fail()


def test_a_small_file_is_one_request(counted: S3Server, bucket: str) -> None:
    storage = Storage(f"{bucket}/small")
    out = storage.write("a.bin", b"abc")
    assert counted.counts() == {"PUT": 1}
    assert storage.read("a.bin") == b"abc"
    assert storage.read("a.bin", 3) == b"abc"
    with storage.open("a.bin") as raw:
        assert (raw.seek(1), raw.read()) == (1, b"bc")
    assert storage.exists("a.bin")
    assert not storage.exists("b.bin")
    assert counted.counts() == {"PUT": 1, "GET": 5}
    # What this process wrote itself it knows by its digest.
    assert storage.read("a.bin", 3, out.sha256) == b"abc"
    assert counted.counts() == {"PUT": 1, "GET": 5}
    storage.remove("a.bin")
    storage.remove("a.bin")
    for call in (storage.read, storage.open):
        with pytest.raises(FileNotFoundError):
            call("a.bin")


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 7])
def test_files_of_any_size(counted: S3Server, bucket: str, size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    storage = Storage(f"{bucket}/sizes")
    out = storage.write(f"{size}.bin", data)
    assert (out.bytes, out.sha256) == (size, sha256(data).hexdigest())
    for known in (None, size):
        assert storage.read(f"{size}.bin", known) == data
        with storage.open(f"{size}.bin", known) as raw:
            assert raw.seek(0, io.SEEK_END) == size
            raw.seek(size // 2)
            assert raw.read(10) == data[size // 2 :][:10]
            raw.seek(0)
            assert raw.read() == data


def test_a_large_parquet_file_is_read_by_column(counted: S3Server, bucket: str) -> None:
    draw = np.random.default_rng(1)
    table = pa.table({name: draw.random(1 << 20) for name in "abcd"})
    raw = io.BytesIO()
    pq.write_table(table, raw, row_group_size=1 << 18)
    storage = Storage(f"{bucket}/tables")
    storage.write("t.parquet", raw.getvalue())
    counted.fail()
    with storage.open("t.parquet", raw.getbuffer().nbytes) as remote:
        assert pq.ParquetFile(remote).read(["b"]).equals(table.select(["b"]))
    assert counted.requests() <= 10


def test_one_of_many_creates_a_file(counted: S3Server, bucket: str) -> None:
    storage = Storage(f"{bucket}/races")

    def create(number: int) -> bool:
        try:
            storage.create("m.json", str(number).encode())
        except ExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create, range(8)))
    assert sum(won) == 1
    assert storage.read("m.json") == str(won.index(True)).encode()


def test_a_store_that_does_not_name_the_condition_refuses_too(
    counted: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS says which condition did not hold; others answer PreconditionFailed and no more."""

    def translated(error: Any, *args: Any, **options: Any) -> Exception:
        getattr(error, "response", {}).get("Error", {}).pop("Condition", None)
        found: Exception = translate_boto_error(error, *args, **options)
        return found

    monkeypatch.setattr("s3fs.core.translate_boto_error", translated)
    storage = Storage(f"{bucket}/unnamed")
    storage.create("m.json", b"first")
    with pytest.raises(ExistsError, match="exists already"):
        storage.create("m.json", b"second")
    assert storage.read("m.json") == b"first"


def test_a_store_that_refuses_to_remove_many_files_at_once(
    counted: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JuiceFS's gateway wants a header for that which botocore sends no more."""

    async def refused(*_: Any, **__: Any) -> None:
        error = {"Code": "MissingContentMD5", "Message": "Missing required header"}
        raise translate_boto_error(ClientError({"Error": error}, "DeleteObjects"))

    monkeypatch.setattr(S3FileSystem, "_bulk_delete", refused)
    storage = Storage(f"{bucket}/many")
    for name in ("a", "b", "c", "folder/d", "folder/e"):
        storage.write(name, b"1")
    storage.remove_all(["a", "b", "gone"])
    assert storage.files() == ["c", "folder/d", "folder/e"]
    storage.at("folder").clear()
    assert storage.files() == ["c"]


def test_a_listing_is_never_an_old_one(counted: S3Server, bucket: str) -> None:
    storage = Storage(f"{bucket}/logs")
    for number, name in enumerate(("a.tsv", "b.tsv", "c/d.tsv")):
        storage.write(name, name.encode())
        assert len(find_sources(storage.root)) == number + 1
    assert len(find_sources(f"{storage.root}/*.tsv")) == 2
    (one,) = find_sources(storage.url("c/d.tsv"))
    with open_source(one.url) as raw:
        assert raw.read() == b"c/d.tsv"
    with pytest.raises(InputError, match="no such file"):
        find_sources(storage.url("e.tsv"))


def _no_credentials(patch: pytest.MonkeyPatch, server: S3Server) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        patch.delenv(name)


def _endpoint(url: str) -> Any:
    return lambda patch, server: patch.setenv("AWS_ENDPOINT_URL", url)


def _faults(**faults: Any) -> Any:
    return lambda patch, server: server.fail(**faults)


@pytest.mark.parametrize(
    ("break_it", "root", "said"),
    [
        (_endpoint("http://127.0.0.1:9"), "bucket", "the store cannot be reached"),
        (_endpoint("127.0.0.1:9000"), "bucket", "the store's endpoint cannot be used"),
        (_no_credentials, "bucket", "no credentials for the store were found"),
        (_faults(reset=True), "bucket", "the store closed the connection"),
        (_faults(deny=True), "bucket", "the store denies access"),
        (_faults(hang=30), "bucket", "the store did not answer within 1 seconds"),
        (_faults(busy_every=1), "bucket", "the store cannot keep up"),
        (_faults(), "missing", "there is no bucket 'missing'"),
    ],
)  # fmt: skip
def test_a_failing_store_is_told_in_a_sentence(
    counted: S3Server,
    bucket: str,
    embedmill: Cli,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    break_it: Any,
    root: str,
    said: str,
) -> None:
    log = PlantedWorld().write(tmp_path / "log.tsv")
    path = tmp_path / "run.toml"
    limit = 1 if "within" in said or "keep up" in said else 5
    path.write_text(to_toml(config(f"s3://{root}/runs", log, run={"store_deadline": limit})))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    break_it(monkeypatch, counted)
    S3FileSystem.clear_instance_cache()
    began = time.monotonic()
    try:
        code, _, err = embedmill(["run", str(path), "--quiet"])
    finally:
        S3FileSystem.clear_instance_cache()
    assert (code, err.count("\n")) == (MachineError.exit_code, 1), err
    assert said in err
    assert f"s3://{root}/runs" in err
    assert time.monotonic() - began < 20


def _raised(module: str, name: str, **attributes: Any) -> Exception:
    error: Exception = type(name, (Exception,), {"__module__": module, **attributes})("it failed")
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (_raised("google.auth.exceptions", "DefaultCredentialsError"), "credentials"),
        (_raised("gcsfs.retry", "HttpError", code=403), "denied"),
        (_raised("gcsfs.retry", "HttpError", code="503"), "busy"),
        (_raised("aiohttp.client_exceptions", "ClientConnectorError"), "unreachable"),
        (_raised("aiohttp.client_exceptions", "ServerDisconnectedError"), "reset"),
        (_raised("azure.core.exceptions", "ClientAuthenticationError"), "refused"),
        (_raised("azure.core.exceptions", "ServiceRequestError"), "unreachable"),
        (_raised("azure.core.exceptions", "HttpResponseError", error_code="ContainerNotFound"),
         "bucket"),
        (_raised("azure.core.exceptions", "HttpResponseError", status_code=503), "busy"),
        (ValueError("a bug"), ""),
    ],
)  # fmt: skip
def test_errors_of_clients_by_name(error: Exception, kind: str) -> None:
    """Of clients that need not be installed."""
    assert kind_of(error) == kind
    explained = store_error(error, "gs://bucket/runs")
    assert (explained is None) == (not kind)
