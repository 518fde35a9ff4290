"""Raw bytes over a real socket: what well-behaved HTTP clients cannot send."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import h11
import trio

from orchestrator.api.guard import App
from orchestrator.api.limits import Limits
from orchestrator.api.serve import serve_http


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    reason: str
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/problem+json"
        found: dict[str, Any] = json.loads(self.body)
        return found


class RawClient:
    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def answer(self, *, to: bytes = b"GET") -> Answer:
        """Reads one whole answer; use `send` for what was asked."""
        fresh = h11.Connection(h11.CLIENT)
        fresh.send(h11.Request(method=to, target="/", headers=[("host", "x")]))
        fresh.send(h11.EndOfMessage())
        head, body = None, b""
        while True:
            event = fresh.next_event()
            if event is h11.NEED_DATA:
                fresh.receive_data(await self.stream.receive_some())
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                headers = {name.decode(): value.decode() for name, value in head.headers}
                return Answer(head.status_code, head.reason.decode(), headers, body)

    async def is_closed(self) -> bool:
        try:
            return not await self.stream.receive_some()
        except trio.BrokenResourceError:
            return True


@asynccontextmanager
async def serving(app: App, limits: Limits | None = None, **more: Any) -> AsyncIterator[int]:
    """The port on which `app` is served with the guard, as in production."""
    stop = trio.Event()
    shutdown: Callable[[], Awaitable[object]] = stop.wait
    async with trio.open_nursery() as nursery:
        serve = partial(serve_http, app, "127.0.0.1:0", shutdown=shutdown, limits=limits, **more)
        urls = await nursery.start(serve)
        yield int(urls[0].rsplit(":", 1)[1])
        stop.set()


@asynccontextmanager
async def raw_client(port: int) -> AsyncIterator[RawClient]:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        yield RawClient(stream)
