"""A child process that ends with the process that started it."""

from __future__ import annotations

import os
import threading
from multiprocessing.connection import Connection

__all__ = ["exit_with_driver"]


def exit_with_driver(connection: Connection) -> None:
    """End this process at once when the driver closes its end of a connection, or dies.

    The driver must not send anything on it any more.
    """
    threading.Thread(target=_exit_at_end, args=(connection,), daemon=True).start()


def _exit_at_end(connection: Connection) -> None:
    connection.poll(None)
    os._exit(1)
