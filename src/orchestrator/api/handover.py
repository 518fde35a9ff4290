"""How a websocket leaves the machinery that accepted it, for the task of its connection.

Hypercorn and Quart keep some eight tasks and four queues for a websocket, which cost more than all that a quiet one
ever says. So they do what they are good at, the upgrade: who asks, what is refused, the answer. Then it is handed over.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog
import trio
from hypercorn.protocol.ws_stream import WSStream

from orchestrator.api.intake import Intake
from orchestrator.api.websocket import WebSocket

HANDOVER = "cynode.handover"
"""The name among the extensions of an ASGI scope."""
Serve = Callable[[WebSocket], Awaitable[None]]


class Handover:
    """How the app of a websocket leaves it to its connection: it accepts, names who serves, and returns."""

    def __init__(self) -> None:
        self._serve: Serve | None = None
        self._context: Mapping[str, Any] = {}

    @property
    def is_wanted(self) -> bool:
        return self._serve is not None

    def to(self, serve: Serve) -> None:
        """`serve` runs once the app has returned, and the connection is closed when it does."""
        self._serve = serve
        self._context = structlog.contextvars.get_contextvars()

    async def serve(self, websocket: WebSocket) -> None:
        """By the connection's own task, which logs from here on under the ids of the request."""
        assert self._serve is not None
        structlog.contextvars.bind_contextvars(**self._context)
        await self._serve(websocket)


class HandedOver:
    """A websocket between the machinery that accepted it and the one that serves it."""

    def __init__(self, handover: Handover, intake: Intake, stream: WSStream) -> None:
        self._handover = handover
        self._intake = intake
        self._stream = stream
        self._early: list[str | bytes] = []
        self._collecting = trio.CancelScope()

    async def collect(self) -> None:
        """What the reader still brings, which else would wait for somebody to take it."""
        with self._collecting:
            while not self._intake.gone:
                self._take(await self._intake.receive())

    def reading_ended(self) -> None:
        self._collecting.cancel()

    async def serve(self, stream: trio.SocketStream, max_bytes: int) -> None:
        for event in self._intake.rest():
            self._take(event)
        if self._intake.gone:
            return
        begun = self._stream.buffer.value
        pieces = None if begun is None else begun.getvalue()
        websocket = WebSocket(stream, self._stream.connection, max_bytes, self._early, pieces)
        serve = self._handover.serve
        del self._stream, self._intake, self._handover
        await serve(websocket)

    def _take(self, event: dict[str, Any]) -> None:
        if event["type"] == "websocket.receive":
            text = event.get("text")
            self._early.append(event["bytes"] if text is None else text)
