"""The config of a run: one TOML file, one frozen tree of sections.

Unknown keys are refused, and so are keys that the run's objective or its kind of index does not
read; errors name the key's full path and what is allowed.
"""

from __future__ import annotations

from embedmill.pipeline.config.auto import AutoConfig
from embedmill.pipeline.config.closed_form import SpectralConfig
from embedmill.pipeline.config.data import (
    EventsConfig,
    ItemsConfig,
    PairsConfig,
    ShardsConfig,
    VocabConfig,
)
from embedmill.pipeline.config.fields import read_fields, stage_fields, to_toml
from embedmill.pipeline.config.load import load, parse
from embedmill.pipeline.config.objective_sections import (
    CclConfig,
    IalsConfig,
    Item2VecConfig,
    SmoothingConfig,
)
from embedmill.pipeline.config.results import (
    EvaluateConfig,
    ExportConfig,
    GatesConfig,
    HnswConfig,
    IndexConfig,
    IvfConfig,
    IvfPqConfig,
    ReportConfig,
)
from embedmill.pipeline.config.run import Config, RunConfig
from embedmill.pipeline.config.schema import json_schema
from embedmill.pipeline.config.signals import SignalsConfig
from embedmill.pipeline.config.train import TrainConfig
from embedmill.pipeline.config.tuned import auto_tree, tuned_tree

__all__ = [
    "AutoConfig",
    "CclConfig",
    "Config",
    "EvaluateConfig",
    "EventsConfig",
    "ExportConfig",
    "GatesConfig",
    "HnswConfig",
    "IalsConfig",
    "IndexConfig",
    "Item2VecConfig",
    "ItemsConfig",
    "IvfConfig",
    "IvfPqConfig",
    "PairsConfig",
    "ReportConfig",
    "RunConfig",
    "ShardsConfig",
    "SignalsConfig",
    "SmoothingConfig",
    "SpectralConfig",
    "TrainConfig",
    "VocabConfig",
    "auto_tree",
    "json_schema",
    "load",
    "parse",
    "read_fields",
    "stage_fields",
    "to_toml",
    "tuned_tree",
]
