"""What stands for all rows of the other side in the loss of a row that is folded in.

A sum over a few sampled rows is noisy: by the sample, users folded in with a model of Gowalla had
94 to 98 % of the recall of trained vectors. The means of clusters of all rows have no such noise,
and few of them suffice (docs/experiments/training-quality.md).

Legend: N rows of the other side, K negatives, D coordinates, E coordinates as exported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from embedmill.pipeline.train.fold_in.fold_in import FoldIn

__all__ = ["Negatives", "cluster_means", "sampled_rows"]

_SAMPLED = {"softmax": 512, "bpr": 128, "ccl": 512}  # of softmax, for PSL
_CLUSTERS = 256
_CLUSTERED = 1 << 17  # rows at most; of a larger table, as many drawn without replacement
_ITERATIONS = 8
_TINY = 1e-300  # logarithms of weights are finite


@dataclass(frozen=True)
class Negatives:
    """Vectors [K, D], biases [K], and logarithms of their weights [K]."""

    vector_KD: Tensor
    bias_K: Tensor
    log_weight_K: Tensor

    @staticmethod
    def of(vector_KD: Tensor, bias_K: Tensor, weight_K: NDArray[Any]) -> Negatives:
        """With weights in place of their logarithms; a weight may be 0."""
        log_weight_K = torch.from_numpy(np.log(np.maximum(weight_K, _TINY))).float()
        return Negatives(vector_KD, bias_K, log_weight_K)


def cluster_means(fold_in: FoldIn) -> Negatives:
    """The means of clusters of all rows, each with the weight of its rows together.

    For losses whose sum over the negatives is one of exponentials of their scores: those of a
    cluster are nearly equal, so that its mean stands for each. k-means by Lloyd's iterations
    (faiss.Kmeans). A bias weighs as its exponential.

    Args:
        fold_in: its table, events and settings.
    """
    chance_N, config = _chances(fold_in), fold_in.config
    row_N = np.flatnonzero(chance_N)
    # As often as training would have drawn them, or once.
    weight_N = np.ones(len(row_N)) if config.logq else config.negatives * chance_N[row_N]
    if len(row_N) > _CLUSTERED:
        drawn = np.random.default_rng(fold_in.seed).choice(len(row_N), _CLUSTERED, replace=False)
        drawn.sort()
        row_N, weight_N = row_N[drawn], weight_N[drawn] * (len(row_N) / _CLUSTERED)
    other_NE = fold_in.with_bias(row_N)
    vector_ND = other_NE[:, : fold_in.dim].contiguous().numpy()
    if fold_in.biased:
        weight_N = weight_N * np.exp(other_NE[:, -1].double().numpy() / config.temperature)
    cluster_N = _clusters(vector_ND, fold_in.seed)
    weight_K = np.bincount(cluster_N, weight_N, int(cluster_N.max()) + 1)
    sum_KD = np.zeros((len(weight_K), fold_in.dim))
    np.add.at(sum_KD, cluster_N, vector_ND * weight_N[:, None])
    kept_K = weight_K > 0
    mean_KD = torch.from_numpy(sum_KD[kept_K] / weight_K[kept_K, None]).float()
    return Negatives.of(mean_KD, torch.zeros(len(mean_KD)), weight_K[kept_K])


def _clusters(vector_ND: NDArray[np.float32], seed: int) -> NDArray[np.int64]:
    """The cluster of each row, int64 [N]; few rows are clusters of their own."""
    if len(vector_ND) <= _CLUSTERS:
        return np.arange(len(vector_ND))
    kmeans = faiss.Kmeans(
        vector_ND.shape[1], _CLUSTERS, niter=_ITERATIONS, seed=seed, min_points_per_centroid=1
    )
    kmeans.train(vector_ND)
    _, cluster_N1 = kmeans.index.search(vector_ND, 1)
    found: NDArray[np.int64] = cluster_N1[:, 0]
    return found


def sampled_rows(fold_in: FoldIn) -> Negatives:
    """Rows of the other side, drawn anew by the same seed each time.

    Args:
        fold_in: its table, events and settings.
    """
    chance_N, config = _chances(fold_in), fold_in.config
    number = _SAMPLED[fold_in.spec.objective]
    if len(chance_N) <= number:
        row_K, weight_K = np.arange(len(chance_N)), (chance_N > 0).astype(np.float64)
    else:
        drawn = np.random.default_rng(fold_in.seed).choice(len(chance_N), number, p=chance_N)
        row_K, times_K = np.unique(drawn, return_counts=True)
        # As often as training would have drawn them, or what the sum over all of them is.
        expected_K = number * chance_N[row_K] if config.logq else number / config.negatives
        weight_K = times_K / expected_K
    other_KE = fold_in.with_bias(row_K)
    bias_K = other_KE[:, -1] if fold_in.biased else torch.zeros(len(row_K))
    return Negatives.of(other_KE[:, : fold_in.dim].contiguous(), bias_K, weight_K)


def _chances(fold_in: FoldIn) -> NDArray[np.float64]:
    """The chance of each row to be drawn, float64 [N].

    Items as training's negatives were drawn, users by their number of events.
    """
    count_N = fold_in.fitted.count_N
    power = fold_in.config.negatives_power if fold_in.side == "users" else 1.0
    chance_N = np.where(count_N > 0, np.maximum(count_N, 1) ** power, 0.0)
    if not chance_N.any():
        chance_N = np.ones_like(chance_N)
    chances: NDArray[np.float64] = chance_N / chance_N.sum()
    return chances
