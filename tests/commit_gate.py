"""A wire before PostgreSQL that holds back the answers to COMMIT: what is committed is there, and nobody knows yet."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit, urlunsplit

import trio

_QUERY = b"COMMIT\x00"


@dataclass
class CommitGate:
    upstream: str
    dsn: str = ""
    held: int = 0
    """Answers that wait."""
    _open: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        self._open.set()

    def close(self) -> None:
        self._open = trio.Event()

    def open(self) -> None:
        self._open.set()

    async def serve(self, client: trio.SocketStream) -> None:
        server = await trio.open_unix_socket(self.upstream)
        committing = False

        async def back() -> None:
            nonlocal committing
            async for data in server:
                if committing and not self._open.is_set():
                    self.held += 1
                    await self._open.wait()
                    self.held -= 1
                committing = False
                await client.send_all(data)

        try:
            async with client, server, trio.open_nursery() as nursery:
                nursery.start_soon(back)
                async for data in client:
                    committing = committing or _QUERY in bytes(data)
                    await server.send_all(data)
                nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass


@asynccontextmanager
async def open_gate(dsn: str) -> AsyncIterator[CommitGate]:
    """For a DSN whose host is a socket folder."""
    parts = urlsplit(dsn)
    gate = CommitGate(f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432")
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, gate.serve, [listener])
        port = listener.socket.getsockname()[1]
        user = parts.netloc.rpartition("@")[0]
        gate.dsn = urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{port}", query="sslmode=disable"))
        yield gate
        nursery.cancel_scope.cancel()
