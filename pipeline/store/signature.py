"""A signature over a finished run: who can write files cannot make another run of it unnoticed.

Checksums tell damage, not an author: whoever writes to a run's folder can write manifests to match.
A signature (Ed25519, RFC 8032) covers the sha256 of the config and of each stage's manifest, and
so, by the sha256 in the manifests, every file of every stage.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from embedmill.pipeline.errors import ConfigError, CorruptArtifactError, MissingArtifactError
from embedmill.pipeline.extras import naming_extras
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.store.stored_json import read_stored
from embedmill.schemas.run import CONFIG, MANIFEST, SIGNATURE, Signature
from embedmill.schemas.stages import STAGES

__all__ = ["check_key", "check_signature", "sign"]

_PRIVATE = "openssl genpkey -algorithm ed25519 -out run.key"
_PUBLIC = "openssl pkey -in run.key -pubout -out run.pub"
_AGAIN = "Run its config again, which signs it anew"


def check_key(path: str) -> None:
    """Raise ConfigError where `run.sign` is no private key, before anything has run."""
    if path:
        _private(path)


def sign(run: Run) -> None:
    """Sign a finished run with the key of `run.sign`, unless that is '' or it is signed already.

    Raises:
        ConfigError: the key cannot be read.
        MissingArtifactError: a stage has not finished.
    """
    if not run.config.run.sign:
        return
    key = _private(run.config.run.sign)
    public, files = key.public_key().public_bytes_raw().hex(), _hashes(run)
    missing = [stage for stage in STAGES if f"{stage}/{MANIFEST}" not in files]
    if missing:
        raise MissingArtifactError(f"stage '{missing[0]}' has not finished", where=run.storage.root)
    try:
        known = _read(run)
    except CorruptArtifactError:
        known = None
    if known is not None and (known.key, known.files) == (public, files):
        return
    signature = key.sign(_message(run.config.run.name, files)).hex()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    signed = Signature(key=public, signed=now, files=files, signature=signature)
    run.storage.write(SIGNATURE.path, SIGNATURE.encode(signed))
    run.storage.sync_folders([SIGNATURE.path])


def check_signature(run: Run, path: str) -> Signature:
    """Check that a run is as it was signed by the owner of a key; its files are for `verify`.

    Args:
        run: the run.
        path: of the public key, a PEM file.

    Raises:
        ConfigError: there is no public key of Ed25519 at the path.
        MissingArtifactError: the run is not signed.
        CorruptArtifactError: it is signed by another key, or was changed after it was signed.
    """
    key, where = _public(path), run.storage.url(SIGNATURE.path)
    signed = _read(run)
    if signed is None:
        raise MissingArtifactError(
            "the run is not signed", where=run.storage.root, todo="Set run.sign and run it again"
        )
    if signed.key != key.public_bytes_raw().hex():
        raise CorruptArtifactError(f"was signed with another key than {path}", where=where)
    with naming_extras("--key"):
        from cryptography.exceptions import InvalidSignature
    try:
        key.verify(bytes.fromhex(signed.signature), _message(run.config.run.name, signed.files))
    except (InvalidSignature, ValueError):
        raise CorruptArtifactError(
            "is no signature of this run", where=where, todo=_AGAIN
        ) from None
    now = _hashes(run)
    changed = sorted(p for p in {*now, *signed.files} if now.get(p) != signed.files.get(p))
    if changed:
        raise CorruptArtifactError(
            "was changed after the run was signed",
            where=run.storage.url(changed[0]),
            todo=_AGAIN,
        )
    return signed


def _hashes(run: Run) -> dict[str, str]:
    """sha256 of the config and of the manifests that are there, by path."""
    found = {}
    for path in (CONFIG, *(f"{stage}/{MANIFEST}" for stage in STAGES)):
        try:
            found[path] = hashlib.sha256(run.storage.read(path)).hexdigest()
        except (FileNotFoundError, NotADirectoryError):
            continue
    return found


def _message(name: str, files: dict[str, str]) -> bytes:
    """What is signed: it says what it is, so that no other message of the key can stand for it."""
    tree = {"embedmill": "run", "format": 1, "run": name, "files": files}
    return json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()


def _read(run: Run) -> Signature | None:
    return read_stored(run.storage, SIGNATURE, _AGAIN)


def _private(path: str) -> Any:
    with naming_extras("run.sign"):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    key = _loaded(path, lambda data: load_pem_private_key(data, None), "run.sign", _PRIVATE)
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key(path, "run.sign", _PRIVATE)
    return key


def _public(path: str) -> Any:
    with naming_extras("--key"):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    key = _loaded(path, load_pem_public_key, "--key", _PUBLIC)
    if not isinstance(key, Ed25519PublicKey):
        raise _no_key(path, "--key", _PUBLIC)
    return key


def _loaded(path: str, load: Any, where: str, todo: str) -> Any:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"'{path}' cannot be read: {error.strerror}", where=where, todo=f"`{todo}` makes one"
        ) from None
    with naming_extras(where):
        from cryptography.exceptions import UnsupportedAlgorithm
    try:
        return load(data)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _no_key(path, where, todo) from None


def _no_key(path: str, where: str, todo: str) -> ConfigError:
    return ConfigError(
        f"'{path}' is no {'private' if where == 'run.sign' else 'public'} key of Ed25519 in PEM "
        "without a password",
        where=where,
        todo=f"`{todo}` makes one",
    )
