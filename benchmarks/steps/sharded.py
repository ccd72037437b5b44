"""TorchRec: both tables sharded by row over two gloo ranks, FBGEMM's fused optimizer.

An event's user, its item and the negatives are looked up in one all-to-all; the loss is the
stock one. Run by the Python of `benchmarks/peers/torchrec.txt`.
"""

from __future__ import annotations

import os
import warnings

warnings.simplefilter("ignore")  # theirs, of deprecated parts of torch

import torch  # noqa: E402
from fbgemm_gpu.split_embedding_configs import EmbOptimType  # noqa: E402
from steps import turns  # noqa: E402
from torchrec.distributed import DistributedModelParallel  # noqa: E402
from torchrec.distributed.embedding import EmbeddingCollectionSharder  # noqa: E402
from torchrec.distributed.sharding_plan import (  # noqa: E402
    construct_module_sharding_plan,
    row_wise,
)
from torchrec.distributed.types import ShardingPlan  # noqa: E402
from torchrec.modules.embedding_configs import EmbeddingConfig  # noqa: E402
from torchrec.modules.embedding_modules import EmbeddingCollection  # noqa: E402
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor  # noqa: E402

TEMPERATURE = 0.1
OPTIMIZERS = {
    "adagrad": {"optimizer": EmbOptimType.EXACT_ROWWISE_ADAGRAD, "learning_rate": 0.1},
    "adam": {"optimizer": EmbOptimType.ADAM, "learning_rate": 0.005},
}


def model_of(task: turns.Task) -> DistributedModelParallel:
    os.environ |= {"LOCAL_RANK": str(task.rank), "LOCAL_WORLD_SIZE": str(task.world)}
    tables = EmbeddingCollection(
        device=torch.device("meta"),
        tables=[
            EmbeddingConfig(
                name=f"{name}_table", embedding_dim=task.dim, num_embeddings=rows,
                feature_names=[name],
            )
            for name, rows in task.table.items()
        ],
    )  # fmt: skip
    sharder = EmbeddingCollectionSharder(fused_params=OPTIMIZERS[task.optimizer])
    plan = construct_module_sharding_plan(
        tables,
        {f"{name}_table": row_wise(compute_kernel="fused") for name in task.table},
        sharder=sharder,
        local_size=task.world,
        world_size=task.world,
        device_type="cpu",
    )
    return DistributedModelParallel(
        tables, plan=ShardingPlan({"": plan}), device=torch.device("cpu"), sharders=[sharder]
    )


def main() -> None:
    task = turns.joined()
    model, slices = model_of(task), turns.batches(task)

    def take(step: int) -> None:
        user_B, item_B, negative_K = slices[step % len(slices)]
        found = model(
            KeyedJaggedTensor(
                keys=list(task.table),
                values=torch.cat([user_B, item_B, negative_K]),
                lengths=torch.tensor([len(user_B), len(item_B) + len(negative_K)]),
                stride=1,
            )
        )
        user_BD, item_ND = (found[name].values() for name in task.table)
        item_BD, negative_KD = item_ND.split([len(item_B), len(negative_K)])
        turns.stock_loss(user_BD, item_BD, negative_KD, TEMPERATURE).backward()

    turns.take_turns(take)


if __name__ == "__main__":
    main()
