"""A wire that can be cut: a TCP proxy in front of a socket, told when to break which direction."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit, urlunsplit

import trio


class Proxy:
    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self.dsn = ""
        self._watched = b""
        self._deliver = False
        self._swallow = b""
        self.refuse = False
        """While true, a client is hung up on as soon as it calls."""
        self._wires: set[_Wire] = set()

    def cut_at(self, word: bytes, *, deliver: bool) -> None:
        """Breaks the connection on which the client sends `word`; the server still reads it, or not."""
        self._watched, self._deliver = word, deliver

    def swallow_answers_after(self, word: bytes) -> None:
        """From then on nothing comes back on the wire on which it was sent, though it stays open."""
        self._swallow = word

    def cut(self) -> None:
        """Hangs up on everybody, now."""
        for wire in self._wires:
            wire.scope.cancel()

    def mend(self) -> None:
        self._swallow = b""
        self.refuse = False

    async def serve(self, client: trio.SocketStream) -> None:
        if self.refuse:
            await client.aclose()
            return
        server = await trio.open_unix_socket(self._upstream)
        wire = _Wire()
        self._wires.add(wire)
        try:
            with wire.scope:
                async with client, server, trio.open_nursery() as nursery:
                    nursery.start_soon(self._back, server, client, wire, nursery.cancel_scope)
                    await self._forth(client, server, wire)
                    nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self._wires.discard(wire)

    async def _forth(self, client: trio.SocketStream, server: trio.SocketStream, wire: "_Wire") -> None:
        async for data in client:
            if self._swallow and self._swallow in bytes(data):
                wire.silent = True
            if self._watched and self._watched in bytes(data):
                self._watched = b""
                wire.silent = True
                if self._deliver:
                    await server.send_all(data)
                    await wire.answered.wait()
                return
            await server.send_all(data)

    async def _back(
        self, server: trio.SocketStream, client: trio.SocketStream, wire: "_Wire", scope: trio.CancelScope
    ) -> None:
        async for data in server:
            if wire.silent:
                wire.answered.set()
            else:
                await client.send_all(data)
        scope.cancel()


class _Wire:
    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.silent = False
        self.answered = trio.Event()


@asynccontextmanager
async def open_proxy(dsn: str) -> AsyncIterator[Proxy]:
    """For a DSN whose host is a socket folder."""
    parts = urlsplit(dsn)
    proxy = Proxy(f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432")
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, proxy.serve, listeners)
        port = listeners[0].socket.getsockname()[1]
        user = parts.netloc.rpartition("@")[0]
        proxy.dsn = urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{port}", query="sslmode=disable"))
        yield proxy
        nursery.cancel_scope.cancel()
