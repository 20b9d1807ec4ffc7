"""Messages and frames between this process and a decoding process.

A message is a pickled Python object, optionally with one buffer: a file without a name, sent as a descriptor and
mapped by both sides. Its memory belongs to whoever still maps it, so nothing is copied and nothing can be left behind
in a folder, however either process ends. What the receiver writes into its frames stays its own (copy on write), also
after a fork.
"""

from __future__ import annotations

import mmap
import os
import socket
import sys
import tempfile
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray


class SharedBuffer:
    """Anonymous memory that can be handed to another process.

    Args:
        shape: Shape of the ``uint8`` array in it.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._file = _anonymous_file()
        os.ftruncate(self._file, int(np.prod(shape, dtype=np.int64)))
        self.array = _map(self._file, shape, mmap.ACCESS_WRITE)

    def fileno(self) -> int:
        """Its descriptor."""
        return self._file

    def close(self) -> None:
        """Give the descriptor up; arrays stay valid."""
        os.close(self._file)


def _anonymous_file() -> int:
    if sys.platform == "linux":
        return os.memfd_create("marc-frames", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _map(file: int, shape: tuple[int, ...], access: int) -> NDArray[np.uint8]:
    return np.frombuffer(mmap.mmap(file, 0, access=access), np.uint8).reshape(shape)


class Channel:
    """One end of a connection.

    Args:
        end: A Unix stream socket.
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._messages = Connection(os.dup(end.fileno()))

    def send(self, message: Any, buffer: SharedBuffer | None = None) -> None:
        """Send a message, and with it a buffer of frames."""
        self._messages.send((message, None if buffer is None else buffer.array.shape))
        if buffer is not None:
            socket.send_fds(self._socket, [b"\0"], [buffer.fileno()])

    def arrives(self, timeout: float) -> bool:
        """Whether a message (or the other side's end) arrives within `timeout` seconds."""
        return self._messages.poll(timeout)

    def receive(self) -> tuple[Any, NDArray[np.uint8] | None]:
        """The next message and its frames.

        Raises:
            EOFError: The other side is gone.
        """
        message, shape = self._messages.recv()
        if shape is None:
            return message, None
        _, (file, *_), _, _ = socket.recv_fds(self._socket, 1, 1)
        try:
            return message, _map(file, shape, mmap.ACCESS_COPY)
        finally:
            os.close(file)

    def close(self) -> None:
        """Hang up."""
        self._messages.close()
        self._socket.close()
