"""What every section is made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

__all__ = ["ELSEWHERE", "Names", "Paths", "Section"]

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
