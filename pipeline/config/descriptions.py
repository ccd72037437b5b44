"""What each key of a config means, by where it stands in the TOML."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

from embedmill.pipeline.config.run import Config
from embedmill.pipeline.config.train import TrainConfig

__all__ = ["descriptions"]


def descriptions(config: Config) -> dict[str, str]:
    """The description of each key by its path: "train.softmax.temperature"."""
    return dict(_described(config, ""))


def _described(model: BaseModel, prefix: str) -> Iterator[tuple[str, str]]:
    for name, field in type(model).model_fields.items():
        path = f"{prefix}{name}"
        if isinstance(model, TrainConfig):
            path = model.keys.path(name)
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _described(value, f"{path}.")
        elif field.description:
            yield path, field.description
