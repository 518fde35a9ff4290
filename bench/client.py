"""HTTP as a bench needs it: little work of its own, since it shares the machine with what it measures."""

import asyncio
import json
import socket
import time
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")


class Failed(Exception):
    """An answer that the bench did not expect."""


class Client:
    """One keep-alive connection, blocking."""

    def __init__(self, url: str, token: str = "") -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self.token = token
        self._socket: socket.socket | None = None

    def request(self, method: str, path: str, body: object = None, expect: int = 200) -> Any:
        raw = b"" if body is None else json.dumps(body).encode()
        status, answer = self.send(self.encode(method, path, raw))
        if status != expect:
            raise Failed(f"{method} {path}: {status} {answer[:300]!r}")
        return json.loads(answer) if answer[:1] in (b"{", b"[") else answer

    def encode(self, method: str, path: str, raw: bytes = b"") -> bytes:
        return encode(method, path, raw, self.token)

    def send(self, request: bytes) -> tuple[int, bytes]:
        if self._socket is None:
            self._socket = self._connect()
        self._socket.sendall(request)
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._receive(self._socket)
        head, _, rest = data.partition(b"\r\n\r\n")
        length = _length(head)
        while len(rest) < length:
            rest += self._receive(self._socket)
        if b"\r\nconnection: close" in head.lower():  # after a thousand requests, say
            self._socket.close()
            self._socket = None
        return int(head[9:12]), rest

    def events(self, path: str) -> Iterator[tuple[str, dict[str, Any], int]]:
        """(event, data, CLOCK_MONOTONIC in ns when it was read) until its `end`, or until the server closes."""
        with self._connect() as stream:
            stream.sendall(self.encode("GET", path))
            data = b""
            while more := stream.recv(1 << 16):
                at = time.monotonic_ns()
                data += more
                *frames, data = data.split(b"\n\n")
                yield from ((kind, told, at) for frame in frames for kind, told in parse_frame(frame))

    def _connect(self) -> socket.socket:
        made = socket.create_connection(self._address, timeout=60)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    @staticmethod
    def _receive(connection: socket.socket) -> bytes:
        data = connection.recv(1 << 18)
        if not data:
            raise Failed("the server closed the connection")
        return data

    def login(self, handle: str, password: str) -> str:
        tokens = self.request("POST", "/v1/auth/login", {"handle": handle, "password": password})
        self.token = tokens["access_token"]
        return self.token


def encode(method: str, path: str, raw: bytes, token: str) -> bytes:
    auth = f"Authorization: Bearer {token}\r\n" if token else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\n{auth}Content-Length: {len(raw)}\r\n\r\n"
    return head.encode() + raw


def parse_frame(frame: bytes) -> list[tuple[str, dict[str, Any]]]:
    """One server-sent event, wherever chunks of the transfer encoding were cut; none for a comment."""
    fields = dict(line.split(b": ", 1) for line in frame.split(b"\n") if b": " in line and not line.startswith(b":"))
    if b"data" not in fields or b"event" not in fields:
        return []
    return [(fields[b"event"].decode(), json.loads(fields[b"data"]))]


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            return int(line.split(b":", 1)[1])
    return 0


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """On asyncio's own loop: importing trio-asyncio, as the server's parts do, puts another in its place."""
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        return runner.run(work)


def flood(url: str, requests: Sequence[bytes], connections: int, expect: int = 201) -> float:
    """Sends all requests over so many keep-alive connections, each one after another; seconds from first to last."""
    return run_async(_flood(url, requests, connections, expect))


async def _flood(url: str, requests: Sequence[bytes], connections: int, expect: int) -> float:
    left = iter(requests)
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    lanes = [
        (await loop.create_connection(lambda: _Lane(left, expect), parts.hostname, parts.port))[1]
        for _ in range(connections)
    ]
    began = time.perf_counter()
    for lane in lanes:
        lane.next()
    await asyncio.gather(*(lane.done for lane in lanes))
    return time.perf_counter() - began


class _Lane(asyncio.Protocol):
    def __init__(self, left: Iterator[bytes], expect: int) -> None:
        self._left = left
        self._expect = expect
        self._data = b""
        self._need = -1
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def next(self) -> None:
        request = next(self._left, None)
        if request is None:
            self._transport.close()
            if not self.done.done():
                self.done.set_result(None)
        else:
            self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if self._need < 0:
            end = self._data.find(b"\r\n\r\n")
            if end < 0:
                return
            self._need = end + 4 + _length(self._data[:end])
        if len(self._data) < self._need:
            return
        if int(self._data[9:12]) != self._expect:
            self._fail(Failed(repr(self._data[:500])))
            return
        self._data, self._need = b"", -1
        self.next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or Failed("the server closed the connection"))

    def _fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)
