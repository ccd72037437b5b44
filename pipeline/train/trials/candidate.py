"""What is tried: an objective with some of its settings, and the config that trains it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from embedmill.pipeline.config import TrainConfig
from embedmill.pipeline.config.objectives import OBJECTIVE_KEYS, readers_of

__all__ = ["SMOOTHING_WEIGHT", "Candidate"]

SMOOTHING_WEIGHT = "smoothing.weight"

_SECTIONS = {keys.section for keys in OBJECTIVE_KEYS.values()}


@dataclass(frozen=True)
class Candidate:
    """An objective, a dimension, and settings other than the objective's defaults.

    `settings` are by field of `TrainConfig`, those of a section by path: "smoothing.weight".
    """

    objective: str
    dim: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    def with_settings(self, **settings: Any) -> Candidate:
        """The same with other values; "__" in a keyword stands for the dot of a path."""
        changed = {key.replace("__", "."): value for key, value in settings.items()}
        dim = changed.pop("dim", self.dim)
        return Candidate(self.objective, dim, {**self.settings, **changed})

    @property
    def key(self) -> tuple[object, ...]:
        """What tells it from others: all but the weight of the smoothing, which a trial finds."""
        settings = {k: v for k, v in self.settings.items() if k != SMOOTHING_WEIGHT}
        return self.objective, self.dim, *sorted(settings.items())

    def config(self, auto: TrainConfig, epochs: int) -> TrainConfig:
        """Section train that trains it.

        Args:
            auto: the user's section, whose other keys are kept.
            epochs: how many, at most.
        """
        kept = {
            name: getattr(auto, name)
            for name in TrainConfig.model_fields
            if name not in _SECTIONS and (name == "weight_power" or not readers_of(name))
        }
        fields: dict[str, Any] = {}
        for path, value in self.settings.items():
            section, _, key = path.rpartition(".")
            (fields.setdefault(section, {}) if section else fields)[key] = value
        own = {"objective": self.objective, "dim": self.dim, "epochs": epochs}
        return TrainConfig.model_validate({**kept, **own, **fields})

    def __str__(self) -> str:
        """For the user: "ials, 64 dimensions, regularization 0.003"."""
        own = f"{self.objective}."
        facts = [f"{key.removeprefix(own)} {value:g}" for key, value in self.settings.items()]
        return ", ".join([self.objective, f"{self.dim} dimensions", *facts])
