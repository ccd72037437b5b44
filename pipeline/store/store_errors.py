"""What the clients of object stores raise, in sentences: botocore, gcsfs, adlfs and below them.

An error is recognized by its class's name and library and by the store's own code, so that no
client needs to be installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from embedmill.pipeline.errors import MachineError

__all__ = ["codes_of", "kind_of", "no_answer", "no_bucket", "store_error"]

# Kind of error → what is wrong, what to do.
_SENTENCES: dict[str, tuple[str, str]] = {
    "unreachable": (
        "the store cannot be reached",
        "Check its endpoint (for S3, AWS_ENDPOINT_URL), the network and proxies",
    ),
    "credentials": (
        "no credentials for the store were found",
        "Give them in the environment (for S3, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY) or in "
        "the files of the store's own tools",
    ),
    "refused": (
        "the store refuses these credentials",
        "Check the key, its secret, whether they have expired, and this machine's clock",
    ),
    "denied": (
        "the store denies access",
        "Let these credentials read, write, list and delete there",
    ),
    "bucket": (
        "there is no bucket '{bucket}'",
        "Create it, or correct its name or the endpoint; embedmill creates none",
    ),
    "reset": (
        "the store closed the connection",
        "Run the same command again: it goes on where it stopped",
    ),
    "busy": (
        "the store cannot keep up, or fails",
        "Run the same command again later: it goes on where it stopped",
    ),
    "silent": (
        "the store did not answer in time",
        "Run the same command again, or raise run.store_deadline",
    ),
    "endpoint": ("the store's endpoint cannot be used", "Give it as http://HOST:PORT"),
    "region": ("the store is in another region", "Set AWS_DEFAULT_REGION to the bucket's region"),
}

# Codes of S3, Google Cloud Storage and Azure Blob Storage, and HTTP's, by kind.
_CODES: dict[str, tuple[str, ...]] = {
    "bucket": ("NoSuchBucket", "ContainerNotFound"),
    "refused": (
        "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken",
        "RequestTimeTooSkewed", "AuthenticationFailed", "TokenRefreshRequired", "401",
    ),
    "denied": (
        "AccessDenied", "AllAccessDisabled", "AccountProblem", "AuthorizationFailure",
        "AuthorizationPermissionMismatch", "403",
    ),
    "busy": (
        "SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "ServerBusy",
        "OperationAborted", "ConditionalRequestConflict", "408", "429", "500", "502", "503", "504",
    ),
    "region": ("PermanentRedirect", "AuthorizationHeaderMalformed",
               "IllegalLocationConstraintException", "301"),
}  # fmt: skip
_KIND_OF_CODE = {code: kind for kind, codes in _CODES.items() for code in codes}

# Classes by library (the first part of their module's name) and kind; the first that fits counts.
_CLASSES: dict[str, dict[str, tuple[str, ...]]] = {
    "botocore": {
        "credentials": (
            "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError",
            "ProfileNotFound", "TokenRetrievalError", "SSOTokenLoadError",
            "UnauthorizedSSOTokenError", "InvalidConfigError",
        ),
        "unreachable": (
            "EndpointConnectionError", "ConnectTimeoutError", "ProxyConnectionError", "SSLError",
        ),
        "silent": ("ReadTimeoutError",),
        "reset": ("ConnectionClosedError", "ConnectionError", "HTTPClientError",
                  "ResponseStreamingError", "IncompleteReadError", "ResponseParserError"),
    },
    "aiohttp": {
        "unreachable": (
            "ClientConnectorError", "ClientConnectorDNSError", "ClientProxyConnectionError",
            "ClientConnectorCertificateError", "ClientConnectorSSLError",
        ),
        "silent": ("ServerTimeoutError", "SocketTimeoutError", "ConnectionTimeoutError"),
        "reset": ("ServerDisconnectedError", "ClientOSError", "ClientPayloadError", "ClientError",
                  "ClientConnectionError", "ClientConnectionResetError"),
    },
    "google": {
        "credentials": ("DefaultCredentialsError", "RefreshError", "GoogleAuthError"),
        "unreachable": ("TransportError",),
    },
    "requests": {
        "unreachable": ("ConnectionError", "ProxyError", "SSLError", "ConnectTimeout"),
        "silent": ("ReadTimeout", "Timeout"),
        "reset": ("ChunkedEncodingError",),
    },
    "gcsfs": {"busy": ("ChecksumError",)},
    "azure": {
        "credentials": ("CredentialUnavailableError",),
        "refused": ("ClientAuthenticationError",),
        "unreachable": ("ServiceRequestError", "ServiceRequestTimeoutError"),
        "silent": ("ServiceResponseTimeoutError",),
        "reset": ("ServiceResponseError", "IncompleteReadError", "DecodeError"),
    },
    "builtins": {
        "silent": ("TimeoutError",),
        "reset": ("ConnectionResetError", "ConnectionAbortedError", "BrokenPipeError"),
        "unreachable": ("ConnectionRefusedError",),
        "denied": ("PermissionError",),
    },
    "socket": {"unreachable": ("gaierror",)},
    "fsspec": {"silent": ("FSTimeoutError",)},
}  # fmt: skip
_LIBRARIES = (*_CLASSES, "aiobotocore", "s3fs", "adlfs", "msal")


def store_error(error: BaseException, where: str) -> MachineError | None:
    """The error of an object store's client as a sentence; None for any other error.

    Args:
        error: as it was raised.
        where: URL that it concerns.
    """
    kind = kind_of(error)
    if kind:
        what, todo = _SENTENCES[kind]
        return MachineError(what.format(bucket=_bucket(where)), where=where, todo=todo)
    if _library(error) in _LIBRARIES and _library(error) != "builtins":
        return MachineError(f"{type(error).__name__}: {error}", where=where)
    return None


def no_answer(where: str, seconds: float) -> MachineError:
    """The error of a call that did not end by its deadline."""
    what = f"the store did not answer within {seconds:g} seconds"
    return MachineError(what, where=where, todo=_SENTENCES["silent"][1])


def no_bucket(where: str) -> MachineError:
    """The error of a file whose bucket is not there."""
    what, todo = _SENTENCES["bucket"]
    return MachineError(what.format(bucket=_bucket(where)), where=where, todo=todo)


def codes_of(error: BaseException) -> list[str]:
    """The codes that a store gave, of an error and of what it was raised from."""
    return [code for one in _chain(error) for code in _codes(one)]


def kind_of(error: BaseException) -> str:
    """The kind of an error, a key of `_SENTENCES`; '' where it is none of them."""
    for code in codes_of(error):
        if code in _KIND_OF_CODE:
            return _KIND_OF_CODE[code]
    for one in _chain(error):
        if "invalid endpoint" in str(one).lower():
            return "endpoint"
        # A class is known by its own name, or by that of what it derives from.
        for base in type(one).__mro__:
            for kind, names in _CLASSES.get(base.__module__.partition(".")[0], {}).items():
                if base.__name__ in names:
                    return kind
    return ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what it was raised from."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        inner = getattr(one, "kwargs", None)  # botocore names what it made an error of
        if isinstance(inner, dict) and isinstance(inner.get("error"), BaseException):
            yield inner["error"]
        yield one
        one = one.__cause__


def _codes(error: Any) -> Iterator[str]:
    """The codes that the store gave: by name, and by number of HTTP."""
    if _library(error) == "builtins":
        return
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        yield str(response.get("Error", {}).get("Code", ""))
        yield str(response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
    for name in ("error_code", "code", "status_code", "status"):  # azure, gcsfs, aiohttp
        code = getattr(error, name, None)
        if code is not None:
            yield str(getattr(code, "value", code))


def _library(error: BaseException) -> str:
    return type(error).__module__.partition(".")[0]


def _bucket(where: str) -> str:
    return where.partition("://")[2].partition("/")[0] or where
