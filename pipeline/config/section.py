"""What every section is made of."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic_core import PydanticCustomError

__all__ = ["ELSEWHERE", "Names", "Paths", "Section", "Size"]

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)

# Says where or how fast something runs, never what comes out: left out of fingerprints.
ELSEWHERE: dict[str, Any] = {"shapes_artifact": False}


class Section(BaseModel):
    """A table of the TOML: frozen, and unknown keys are refused."""

    # Defaults are validated too: a 0 for a float would be another value when it is read again.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, validate_default=True)


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_one_or_many)]
Paths = Names


def _bytes(value: Any) -> int:
    """Bytes of a whole number or of a text such as "60MB" (of 1000) or "1.5GiB" (of 1024)."""
    found = None
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        found = _SIZE.fullmatch(str(value).strip())
    size = 0
    if found is not None:
        power = " kmgt".index(found[2].lower() or " ")
        size = round(float(found[1]) * (1024 if found[3] else 1000) ** power)
    if size < 1:
        raise PydanticCustomError(
            "size", 'a number of bytes or a text such as "60MB" or "1.5GiB", above 0'
        )
    return size


Size = Annotated[int, BeforeValidator(_bytes)]
