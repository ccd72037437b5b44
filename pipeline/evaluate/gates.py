"""Gates: bounds on metrics that a run must meet to be published.

They are judged and their results stored here; `jobs/all.py` refuses to publish a run that failed.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from embedmill.pipeline.config import Config
from embedmill.pipeline.errors import ConfigError
from embedmill.pipeline.evaluate.drift import DRIFT_METRICS
from embedmill.pipeline.evaluate.ranking import RANKING_METRICS
from embedmill.pipeline.evaluate.ratings import BASELINES
from embedmill.pipeline.evaluate.sampled import SAMPLED_METRICS
from embedmill.schemas.evaluate import GateResult

__all__ = ["check_gates", "judge", "metric_names"]


def metric_names(config: Config) -> list[str]:
    """Names of all metrics that `evaluate` can give for this config."""
    ranking = _ranking(config.evaluate.ks)
    evaluate = config.evaluate
    every = [*ranking, *(f"{p}.{m}" for p in ("popularity", "through_index") for m in ranking)]
    names = [*every, *([f"fold_in.{m}" for m in every] if evaluate.fold_in else [])]
    if evaluate.sampled_negatives:
        sampled = [f"{name}@{k}" for k in evaluate.ks for name in SAMPLED_METRICS]
        names += [f"sampled.{p}{m}" for p in ("", "popularity.") for m in sampled]
    names += ["index.recall@10", "index.bytes"]
    align = config.export.align
    if config.train.start if align is None else align:
        names += [*DRIFT_METRICS, *_beside_earlier(config)]
    if config.train.objective == "rating":
        names += [f"{m}{tail}" for m in ("rmse", "mae") for tail in ("", *_dotted(BASELINES))]
    return names


def check_gates(config: Config) -> None:
    """Raise ConfigError if a gate names a metric that the run will not have."""
    gates = config.evaluate.gates
    ranking, every = _ranking(config.evaluate.ks), metric_names(config)
    for section, wanted, allowed in (
        ("over_popularity", gates.over_popularity, ranking),
        ("least", gates.least, every),
        ("most", gates.most, every),
    ):
        for name in wanted:
            if name not in allowed:
                near = difflib.get_close_matches(name, allowed, 1)
                hint = f"did you mean '{near[0]}'? " if near else ""
                raise ConfigError(
                    f"evaluate.gates.{section}: no metric '{name}'; "
                    f"{hint}allowed: {', '.join(allowed)}"
                )


def judge(
    config: Config, metrics: Mapping[str, float], intervals: Mapping[str, tuple[float, float]]
) -> list[GateResult]:
    """The result of every gate, in the order of the config's sections and then by metric.

    If the run lacks the metric (no test events, or no test user known from training), `got` is
    None and the gate has failed. A ratio over a popularity of 0 has no value: then `got` is None,
    and the gate has passed if the metric is above 0. A gate on drift, or on quality beside an
    earlier run, that was not measured, as in the first night, is not judged.

    Args:
        config: of the run.
        metrics: what was measured, by name.
        intervals: ends of the intervals of those that have one; asked where the config says so.
    """
    gates = config.evaluate.gates
    low, high = dict(metrics), dict(metrics)
    if gates.interval:
        low |= {name: ends[0] for name, ends in intervals.items()}
        high |= {name: ends[1] for name, ends in intervals.items()}
    results = []
    for name, wanted in sorted(gates.over_popularity.items()):
        own, popularity = low.get(name), metrics.get(f"popularity.{name}")
        got = own / popularity if own is not None and popularity else None
        passed = got >= wanted if got is not None else bool(own)
        results.append(_gate("over_popularity", name, wanted, got, passed))
    unknown = {*DRIFT_METRICS, *_beside_earlier(config)} - metrics.keys()
    for name, wanted in sorted(gates.least.items()):
        if name in unknown:
            continue
        got = low.get(name)
        results.append(_gate("least", name, wanted, got, got is not None and got >= wanted))
    for name, wanted in sorted(gates.most.items()):
        if name in unknown:
            continue
        got = high.get(name)
        results.append(_gate("most", name, wanted, got, got is not None and got <= wanted))
    return results


def _gate(gate: str, metric: str, wanted: float, got: float | None, passed: bool) -> GateResult:
    return GateResult(gate=gate, metric=metric, wanted=wanted, got=got, passed=passed)


def _beside_earlier(config: Config) -> list[str]:
    """Quality of the earlier run on this run's test events, and this run's over it."""
    ranking = _ranking(config.evaluate.ks)
    return [f"{prefix}.{name}" for prefix in ("earlier", "over_earlier") for name in ranking]


def _ranking(ks: Sequence[int]) -> list[str]:
    return [f"{name}@{k}" for k in ks for name in RANKING_METRICS]


def _dotted(names: Sequence[str]) -> list[str]:
    return [f".{name}" for name in names]
