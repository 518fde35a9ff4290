"""What a connection hands to the app of one request: its body in pieces, and that the client is gone.

The channel is Hypercorn's own in size. What is beside it: nobody has to wait on it to learn that the client is gone, so
that a request whose body has come needs one task and not three.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import trio

INTAKE = "cynode.intake"
"""The name among the extensions of an ASGI scope."""
Event = dict[str, Any]


class Intake:
    def __init__(self, most: int) -> None:
        self._in, self._out = trio.open_memory_channel[Event](most)
        self._goodbye: Event | None = None
        self._on_gone: Callable[[], object] | None = None
        self._connected = False
        self.complete = False
        """The whole body is in the channel, or was read."""

    @property
    def gone(self) -> bool:
        """The client, or the whole exchange with it: nothing more will be put."""
        return self._goodbye is not None

    async def put(self, event: Event) -> None:
        """From the connection's reader; waits for an app that does not read, but not to say that the client is gone."""
        if event["type"].endswith(".disconnect"):
            self._part(event)
            return
        try:
            self._in.send_nowait(event)
        except trio.WouldBlock:
            with suppress(trio.ClosedResourceError):  # it parts meanwhile
                await self._in.send(event)
        except trio.ClosedResourceError:
            return
        self.complete = self.complete or (event["type"] == "http.request" and not event.get("more_body", False))

    async def receive(self) -> Event:
        try:
            return await self._out.receive()
        except trio.EndOfChannel:
            assert self._goodbye is not None
            return self._goodbye

    async def receive_no_message(self) -> Event:
        """For the app of a websocket, which refuses it or hands it over: messages stay for whoever serves it then."""
        if not self._connected:
            self._connected = True
            return await self.receive()
        gone = trio.Event()
        self.when_gone(gone.set)
        await gone.wait()
        assert self._goodbye is not None
        return self._goodbye

    def rest(self) -> list[Event]:
        """What is there now, without waiting."""
        found: list[Event] = []
        with suppress(trio.WouldBlock, trio.EndOfChannel):
            while True:
                found.append(self._out.receive_nowait())
        return found

    def when_gone(self, call: Callable[[], object] | None) -> None:
        """At once if it is gone already."""
        self._on_gone = call
        if call is not None and self.gone:
            call()

    def _part(self, goodbye: Event) -> None:
        self._goodbye = goodbye
        self._in.close()
        if self._on_gone is not None:
            self._on_gone()
