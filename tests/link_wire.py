"""The wire between nodes and a control-plane, byte by byte: it can be cut, held in one direction, and mended."""

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

import trio

Direction = Literal["up", "down"]
"""up: from the node to the control-plane."""


@dataclass(eq=False)
class _Line:
    node: trio.SocketStream
    server: trio.SocketStream
    websocket: bool = False

    def cut(self) -> None:
        for stream in (self.node, self.server):
            # A reset, as when a machine loses its address: nothing that waits in a buffer is delivered.
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            stream.socket.close()


@dataclass
class Wire:
    port: int
    upstream: int | None = None
    """The control-plane's port; while None, callers are hung up on."""
    cuts: int = 0
    _lines: set[_Line] = field(default_factory=set)
    _held: dict[Direction, trio.Event] = field(default_factory=dict)
    _left: dict[Direction, int] = field(default_factory=dict)
    _news: trio.Event = field(default_factory=trio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Now, all of them."""
        for line in list(self._lines):
            line.cut()

    def cut_after(self, direction: Direction, count: int) -> None:
        """Cuts the next link that carries so many more bytes this way, in the middle of whatever they are."""
        self._left[direction] = count

    async def wait_cut(self, cuts: int) -> None:
        """Until so many links were cut by `cut_after`."""
        with trio.fail_after(20):
            while self.cuts < cuts:
                await self._news.wait()

    def hold(self, direction: Direction) -> None:
        """Nothing is carried this way any more, and nobody is told."""
        self._held.setdefault(direction, trio.Event())

    def mend(self) -> None:
        for event in self._held.values():
            event.set()
        self._held.clear()

    async def serve(self, node: trio.SocketStream) -> None:
        if self.upstream is None:
            await node.aclose()
            return
        try:
            server = await trio.open_tcp_stream("127.0.0.1", self.upstream)
        except OSError:
            await node.aclose()
            return
        line = _Line(node, server)
        self._lines.add(line)
        try:
            async with node, server, trio.open_nursery() as nursery:
                nursery.start_soon(self._carry, "down", server, node, line)
                await self._carry("up", node, server, line)
        except* (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            pass
        finally:
            self._lines.discard(line)

    async def _carry(
        self, direction: Direction, giver: trio.SocketStream, taker: trio.SocketStream, line: _Line
    ) -> None:
        async for data in giver:
            if b"pgrade: websocket" in data:
                line.websocket = True
            if direction in self._held:
                await self._held[direction].wait()
            left = self._left.get(direction)
            if line.websocket and left is not None:
                if len(data) >= left:
                    del self._left[direction]
                    await taker.send_all(data[:left])
                    line.cut()
                    self._tell()
                    return
                self._left[direction] = left - len(data)
            await taker.send_all(data)
        with suppress(trio.ClosedResourceError):
            await taker.send_eof()

    def _tell(self) -> None:
        self.cuts += 1
        self._news.set()
        self._news = trio.Event()


@asynccontextmanager
async def open_wire() -> AsyncIterator[Wire]:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    wire = Wire(listener.socket.getsockname()[1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, wire.serve, [listener])
        yield wire
        nursery.cancel_scope.cancel()
