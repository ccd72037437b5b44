"""Signed runs: whoever can write files, but has not the key, changes nothing unnoticed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from embedmill.pipeline.errors import ConfigError
from embedmill.pipeline.store.run import open_run
from embedmill.pipeline.store.signature import check_key
from tests.support.artifacts import reseal
from tests.support.commands import Cli
from tests.support.crash_scenarios import WORLD, line


def write_keys(folder: Path, name: str) -> tuple[Path, Path]:
    """A private and a public key."""
    key = Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    data = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    public.write_bytes(data)
    return private, public


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with keys of two owners and the runs of one of them."""
    folder = tmp_path_factory.mktemp("signed")
    private, _ = write_keys(folder, "ours")
    write_keys(folder, "theirs")
    log = WORLD.write(folder / "log.tsv")
    line(str(folder / "runs"), log, run={"sign": str(private), "name": "tiny", "partitions": 2})
    return folder


def test_a_signed_run_is_whole(signed: Path, embedmill: Cli) -> None:
    code, out, err = embedmill(["verify", signed / "runs/tiny", "--key", signed / "ours.pub"])
    assert (code, err) == (0, "")
    assert out.startswith("signature ok: ")
    before = (signed / "runs/tiny/signature.json").read_bytes()
    line(
        str(signed / "runs"),
        signed / "log.tsv",
        run={"sign": str(signed / "ours.key"), "name": "tiny", "partitions": 2},
    )
    assert (signed / "runs/tiny/signature.json").read_bytes() == before  # nothing had changed
    assert "PRIVATE" not in (signed / "runs/tiny/config.json").read_text()


def test_what_is_changed_without_the_key_is_named(
    signed: Path, embedmill: Cli, tmp_path: Path
) -> None:
    def changed(name: str, key: str = "ours") -> str:
        place = tmp_path / "tiny"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(signed / "runs/tiny", place)
        CHANGES[name](place)
        code, out, err = embedmill(["verify", place, "--key", signed / f"{key}.pub"])
        assert code == 4, out
        return err

    assert "signed with another key" in changed("nothing", "theirs")
    assert "metrics.json differs from its sha256" in changed("bytes")
    assert "evaluate/manifest.json: was changed after" in changed("bytes and manifest")
    assert "config.json: was changed after" in changed("config")
    assert "report/manifest.json: was changed after" in changed("a stage is gone")
    assert "signature.json: is no signature of this run" in changed("hashes")
    assert "signature.json: is damaged" in changed("a half")
    assert "the run is not signed" in changed("no signature")


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def _bytes_and_manifest(run: Path) -> None:
    _edit(run / "evaluate/metrics.json", "0.", "1.")
    reseal(open_run(str(run)).artifact("evaluate"), "metrics.json")


def _hashes(run: Path) -> None:
    path = run / "signature.json"
    tree = json.loads(path.read_text())
    tree["files"]["config.json"] = "0" * 64
    path.write_text(json.dumps(tree))


CHANGES = {
    "nothing": lambda run: None,
    "bytes": lambda run: _edit(run / "evaluate/metrics.json", "0.", "1."),
    "bytes and manifest": _bytes_and_manifest,
    "config": lambda run: _edit(run / "config.json", '"seed": 1', '"seed": 2'),
    "a stage is gone": lambda run: (run / "report/manifest.json").unlink(),
    "hashes": _hashes,
    "a half": lambda run: (run / "signature.json").write_bytes(b'{"format": 1,'),
    "no signature": lambda run: (run / "signature.json").unlink(),
}


def test_a_signature_of_another_run_is_none(signed: Path, embedmill: Cli, tmp_path: Path) -> None:
    shutil.copytree(signed / "runs/tiny", tmp_path / "other")
    code, _, err = embedmill(["verify", tmp_path / "other", "--key", signed / "ours.pub"])
    assert code == 4
    assert "is no signature of this run" in err


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN PRIVATE KEY-----\nAA\n", b"\xff" * 99])
def test_a_key_that_cannot_be_used_is_told_at_once(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="openssl genpkey"):
        check_key(str(path))
