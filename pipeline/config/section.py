"""The base of every section, and types of values that several sections use."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic_core import PydanticCustomError

__all__ = [
    "FINGERPRINT_IF_CHANGED",
    "IN_FINGERPRINT_IF_READ",
    "NOT_IN_FINGERPRINT",
    "Names",
    "Paths",
    "Section",
    "Size",
    "one_or_many",
]

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)

# For `json_schema_extra` of keys that change where or how fast a stage runs, not its result.
NOT_IN_FINGERPRINT: dict[str, Any] = {"in_fingerprint": False}
# For keys of section train that came after runs had fingerprints: they are part of those of the
# objectives that read them, so that runs of the others stay up to date.
IN_FINGERPRINT_IF_READ: dict[str, Any] = {"in_fingerprint": "if read"}
# For keys that came after fingerprints: there unless they have their default, so that runs which
# were built before stay up to date.
FINGERPRINT_IF_CHANGED: dict[str, Any] = {"in_fingerprint": "if changed"}


class Section(BaseModel):
    """A table of the TOML: frozen, and unknown keys are refused."""

    # Defaults are validated too: an int 0 as the default of a float would become 0.0 when the
    # config is read again, and change the fingerprint.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, validate_default=True)


def one_or_many(value: Any) -> Any:
    """A text as a list of it; anything else as it is."""
    return [value] if isinstance(value, str) else value


Names = Annotated[
    tuple[str, ...], BeforeValidator(one_or_many, json_schema_input_type=str | tuple[str, ...])
]
Paths = Names


def _bytes(value: Any) -> int:
    """Bytes as an integer or as text such as "60MB" (powers of 1000) or "1.5GiB" (of 1024)."""
    match = None
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        match = _SIZE.fullmatch(str(value).strip())
    size = 0
    if match is not None:
        power = " kmgt".index(match[2].lower() or " ")
        size = round(float(match[1]) * (1024 if match[3] else 1000) ** power)
    if size < 1:
        raise PydanticCustomError(
            "size", 'a number of bytes or a text such as "60MB" or "1.5GiB", above 0'
        )
    return size


Size = Annotated[int, BeforeValidator(_bytes, json_schema_input_type=int | str)]
