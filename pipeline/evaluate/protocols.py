"""What a run's figures mean, and which published ones they can stand beside, in words."""

from __future__ import annotations

from embedmill.pipeline.config import Config
from embedmill.pipeline.train.fold_in import how_folded
from embedmill.schemas.evaluate import Protocol
from embedmill.schemas.export import VectorSpec

__all__ = ["protocols"]

_SPLITS = {
    "last": "each user's last events are test",
    "time": "the log's last events are test, at one time for all users",
    "random": "a random share of the events is test",
    "users": "a random share of the users is withheld with all their events",
    "given": "the log says which events are test",
}


def protocols(config: Config, spec: VectorSpec) -> list[Protocol]:
    """Of the metrics without a prefix, of `sampled.` and of `fold_in.`, as far as they exist."""
    found = [_full(config, spec)] if config.shards.split != "users" else []
    if config.evaluate.sampled_negatives:
        found.append(_sampled(config.evaluate.sampled_negatives))
    if config.evaluate.fold_in:
        found.append(_folded_in(config, spec))
    return found


def _full(config: Config, spec: VectorSpec) -> Protocol:
    fitted = " and ".join({"train": "train", "valid": "validation"}[s] for s in spec.fitted)
    name = "leave-one-out" if _leaves_one_out(config) else config.shards.split
    return Protocol(
        prefix="",
        name=f"{name}, whole catalogue",
        measures=f"Split '{config.shards.split}': {_SPLITS[config.shards.split]}. All items are "
        "ranked except those of the user's train and validation events. The model was fitted to "
        f"{fitted} events; users without any of them are left out.",
        not_comparable="Figures over sampled negatives are several times higher and order models "
        "differently. Another split of the same log, other minimum counts, seen items left in, or "
        "a model fitted to other events (with or without validation) gives other figures too.",
    )


def _leaves_one_out(config: Config) -> bool:
    return config.shards.split == "last" and config.shards.test == 1


def _sampled(negatives: int) -> Protocol:
    return Protocol(
        prefix="sampled.",
        name=f"{negatives} sampled negatives",
        measures=f"Each test item is ranked among {negatives} items that are drawn uniformly of "
        "those the user has no event with; equal scores count against it. With shards.split = "
        "'last' and test = 1 this is NCF's leave-one-out (He et al. 2017).",
        not_comparable="Not a figure over the whole catalogue, nor over another number of "
        "negatives, or negatives drawn by popularity. Other draws differ by chance.",
    )


def _folded_in(config: Config, spec: VectorSpec) -> Protocol:
    share = config.evaluate.fold_in
    how = how_folded(spec.objective)
    return Protocol(
        prefix="fold_in.",
        name=f"strong generalisation, {share:g} of the events given",
        measures="Users with test events whom the model was not fitted to. A share of "
        f"{share:g} of these events makes their vectors, {how}; the rest is to be found among all "
        "items except the given ones (Liang et al. 2018).",
        not_comparable="Not a figure over users that the model was fitted to, nor over another "
        "share of given events. Where the split is not 'users', these are the users who came "
        "late, not random ones. Papers withhold users for validation too; here validation events "
        "are those of other users.",
    )
