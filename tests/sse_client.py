"""A reader of server-sent events that hangs up when it has enough, as browsers do."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import h11
import trio


@dataclass(frozen=True)
class Told:
    id: str
    kind: str
    data: dict[str, Any]


class Stream:
    def __init__(self, socket: trio.SocketStream) -> None:
        self._socket = socket
        self._http = h11.Connection(h11.CLIENT)
        self._text = ""
        self.commented = trio.Event()

    async def ask(self, path: str, headers: dict[str, str]) -> h11.Response:
        request = h11.Request(method="GET", target=path, headers=[("Host", "test"), *headers.items()])
        await self._socket.send_all((self._http.send(request) or b"") + (self._http.send(h11.EndOfMessage()) or b""))
        answer = await self._next_part()
        assert isinstance(answer, h11.Response)
        return answer

    async def next(self) -> Told | None:
        """None when the server has ended the answer."""
        while True:
            block, found, rest = self._text.partition("\n\n")
            if not found:
                part = await self._next_part()
                if not isinstance(part, h11.Data):
                    return None
                self._text += bytes(part.data).decode()
                continue
            self._text = rest
            if not block.startswith(":"):
                fields = dict(line.split(": ", 1) for line in block.split("\n"))
                return Told(fields["id"], fields["event"], json.loads(fields["data"]))
            self.commented.set()

    async def rest(self) -> list[Told]:
        found = []
        while (told := await self.next()) is not None:
            found.append(told)
        return found

    async def _next_part(self) -> Any:
        while (part := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._socket.receive_some())
        return part


@asynccontextmanager
async def open_stream(port: int, path: str, headers: dict[str, str], after: str | None = None) -> AsyncIterator[Stream]:
    more = {} if after is None else {"Last-Event-ID": after}
    async with await trio.open_tcp_stream("127.0.0.1", port) as socket:
        stream = Stream(socket)
        answer = await stream.ask(path, headers | more)
        assert answer.status_code == 200
        assert (b"content-type", b"text/event-stream") in list(answer.headers)
        yield stream
