"""The same model as one writes it in torch: `nn.Embedding(sparse=True)`, autograd, SparseAdam.

Each process trains tables of its own on its own batches and exchanges nothing: a data-parallel
training would have to sum sparse gradients over both, so this flatters it.
"""

from __future__ import annotations

import torch
from steps import turns
from torch import nn

TEMPERATURE = 0.1


def main() -> None:
    task = turns.joined()
    users, items = (nn.Embedding(rows, task.dim, sparse=True) for rows in task.table.values())
    parameters = [users.weight, items.weight]
    optimizer: torch.optim.Optimizer = torch.optim.SparseAdam(parameters, lr=0.005)
    if task.optimizer == "adagrad":
        optimizer = torch.optim.Adagrad(parameters, lr=0.1)
    slices = turns.batches(task)

    def take(step: int) -> None:
        user_B, item_B, negative_K = slices[step % len(slices)]
        optimizer.zero_grad()
        turns.stock_loss(users(user_B), items(item_B), items(negative_K), TEMPERATURE).backward()
        optimizer.step()

    turns.take_turns(take)


if __name__ == "__main__":
    main()
