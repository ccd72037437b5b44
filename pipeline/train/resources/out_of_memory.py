"""What is said when a worker runs out of memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from embedmill.pipeline.errors import MachineError

__all__ = ["out_of_memory", "within_memory"]

# Parts of what torch and its libraries raise as a RuntimeError.
_SAID = ("allocate memory", "not enough memory", "out of memory", "bad_alloc", "bad allocation")


def out_of_memory(place: str) -> MachineError:
    """The error for people; `place` says where: "in epoch 2, step 14"."""
    return MachineError(
        f"a worker ran out of memory {place}",
        where="train",
        todo="Set train.tables = 'mapped', lower train.dim or train.batch_size, or use more "
        "machines (train.workers); what was trained is kept, and gone on from",
    )


@contextlib.contextmanager
def within_memory(place: Callable[[], str]) -> Iterator[None]:
    """Around work that may need more memory than there is.

    Raises:
        MachineError: it did, at this worker. The others still wait for it: it must leave them.
    """
    try:
        yield
    except MemoryError as error:
        raise out_of_memory(place()) from error
    except RuntimeError as error:
        if not any(words in str(error) for words in _SAID):
            raise
        raise out_of_memory(place()) from error
