"""The error of a worker that runs out of memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from embedmill.pipeline.errors import MachineError

__all__ = ["catch_out_of_memory", "out_of_memory"]

# Parts of the messages of RuntimeErrors that torch and its libraries raise.
_MESSAGES = ("allocate memory", "not enough memory", "out of memory", "bad_alloc", "bad allocation")


def out_of_memory(when: str) -> MachineError:
    """The error for the user; `when` continues the sentence, as "in epoch 2, step 14"."""
    return MachineError(
        f"a worker ran out of memory {when}",
        where="train",
        todo="Set train.tables = 'mapped', lower train.dim or train.batch_size, or use more "
        "machines (train.workers), and run again: it continues from the last checkpoint",
    )


@contextlib.contextmanager
def catch_out_of_memory(when: Callable[[], str]) -> Iterator[None]:
    """Around work that may need more memory than there is; `when` is as in `out_of_memory`.

    Raises:
        MachineError: this worker ran out of memory. The others may wait for it in an exchange:
            it must leave the group.
    """
    try:
        yield
    except MemoryError as error:
        raise out_of_memory(when()) from error
    except RuntimeError as error:
        if not any(message in str(error) for message in _MESSAGES):
            raise
        raise out_of_memory(when()) from error
