"""What the machine can do: products of square float32 matrices, a step being one of them."""

from __future__ import annotations

import torch
from steps import turns

SIDE = 1024
FLOPS = 2 * SIDE**3


def main() -> None:
    turns.joined()
    left, right, product = torch.rand(3, SIDE, SIDE)
    turns.take_turns(lambda step: torch.mm(left, right, out=product))


if __name__ == "__main__":
    main()
