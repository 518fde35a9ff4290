"""What is to be sent on one link and was not yet."""

from collections import deque
from collections.abc import Callable

import trio

from node_link.codec import Encoded
from node_link.messages import Message


class Outbox:
    """Bounded; `wake` is called with every message, for somebody to take them all."""

    def __init__(self, most: int, wake: Callable[[], None]) -> None:
        self._most = most
        self._wake = wake
        self._waiting: deque[Message | Encoded] = deque()
        self._closed = False

    def send_nowait(self, message: Message | Encoded) -> None:
        """Raises trio.WouldBlock when it is full, and trio.ClosedResourceError."""
        if self._closed:
            raise trio.ClosedResourceError
        if len(self._waiting) >= self._most:
            raise trio.WouldBlock
        self._waiting.append(message)
        self._wake()

    def take(self) -> Message | Encoded | None:
        return self._waiting.popleft() if self._waiting else None

    def close(self) -> None:
        """Nothing more goes out: what waits is dropped."""
        self._closed = True
        self._waiting.clear()
