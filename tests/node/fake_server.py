"""A control-plane for the agent's tests: REST and links on one real port, driven message by message by the test."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID, uuid4

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

HEARTBEAT = 1.0


class _Replayed(trio.abc.Stream):
    """A stream whose first bytes were read already, to see whether it is a websocket."""

    def __init__(self, stream: trio.SocketStream, first: bytes) -> None:
        self._stream = stream
        self._first = first

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first
        return bytes(await self._stream.receive_some(max_bytes))

    async def send_all(self, data: Any) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


class FakeLink:
    """One link, at its server's end. Heartbeats are answered; nothing else is, unless `auto_ack` is set."""

    def __init__(self, socket: WebSocketConnection, stream: trio.SocketStream, auto_ack: bool) -> None:
        self._socket = socket
        self._stream = stream
        self.auto_ack = auto_ack
        self.answer_heartbeats = True
        self.hello: dict[str, Any] = {}
        self.messages: list[dict[str, Any]] = []
        self.closed: tuple[int, str] | None = None
        self._read = 0
        self._changed = trio.Event()

    async def send(self, kind: str, **fields: Any) -> None:
        await self._socket.send_message(json.dumps({"type": kind, **fields}))

    async def send_text(self, text: str) -> None:
        await self._socket.send_message(text)

    async def welcome(self, **fields: Any) -> None:
        await self.send("welcome", **{"link_id": str(uuid4()), "heartbeat_interval": HEARTBEAT, **fields})

    async def close(self, code: int, reason: str = "") -> None:
        await self._socket.aclose(code, reason)

    async def drop(self) -> None:
        """Cuts the connection without a word."""
        await self._stream.aclose()

    async def ack(self, position: int, spool_id: str | None = None) -> None:
        await self.send("ack", spool_id=spool_id or self.hello["spool_id"], position=position)

    async def expect(self, *kinds: str) -> dict[str, Any]:
        """The next message of one of these types; others on the way are left out."""
        with trio.fail_after(15):
            while True:
                while self._read < len(self.messages):
                    message = self.messages[self._read]
                    self._read += 1
                    if message["type"] in kinds:
                        return message
                if self.closed:
                    raise AssertionError(f"the link closed with {self.closed} while {kinds} was awaited")
                await self._changed.wait()

    async def expect_record(self, kind: str, assignment_id: str) -> dict[str, Any]:
        """The next record of this kind for one assignment."""
        while True:
            message = await self.expect(kind)
            for record in message["jobs"]:
                if record["assignment_id"] == assignment_id:
                    return dict(record)

    async def wait_closed(self) -> tuple[int, str]:
        with trio.fail_after(15):
            while self.closed is None:
                await self._changed.wait()
            return self.closed

    def records(self, *kinds: str) -> list[dict[str, Any]]:
        return [
            {**record, "type": message["type"]}
            for message in self.messages
            if message["type"] in (kinds or ("jobs.started", "jobs.output", "jobs.finished"))
            for record in message["jobs"]
        ]

    async def run(self) -> None:
        try:
            while True:
                message = json.loads(await self._socket.get_message())
                self.messages.append(message)
                await self._answer(message)
                self._notify()
        except (ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            reason = error.reason if isinstance(error, ConnectionClosed) else None
            self.closed = (reason.code, reason.reason or "") if reason else (1006, "")
            self._notify()

    async def _answer(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "heartbeat" and self.answer_heartbeats:
            await self.send("heartbeat")
        if self.auto_ack and kind in ("jobs.started", "jobs.output", "jobs.finished"):
            await self.ack(message["jobs"][-1]["position"] + 1)

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class FakeServer:
    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, list[tuple[int, Any]]] = {}
        """What to answer next on a path, instead of the usual."""
        self.config: dict[str, Any] = {"version": 1, "config_version": "01ARZ3NDEKTSV4RRFFQ69G5FAV"}
        self.auto_ack = True
        self.tokens_seen: list[str] = []
        self._links_in, self._links_out = trio.open_memory_channel[FakeLink](100)

    def bodies(self, path: str) -> list[dict[str, Any]]:
        return [body for at, body in self.requests if at == path]

    async def next_link(self) -> FakeLink:
        """The next link that the agent opens, after its hello."""
        with trio.fail_after(20):
            return await self._links_out.receive()

    async def linked(self, **welcome: Any) -> FakeLink:
        link = await self.next_link()
        await link.welcome(**welcome)
        return link

    async def serve(self, stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            first = await _head(stream)
            if b"upgrade: websocket" in first.lower():
                await self._serve_link(stream, first)
            elif first:
                await self._serve_rest(stream, first)

    async def _serve_link(self, stream: trio.SocketStream, first: bytes) -> None:
        self.tokens_seen.append(_header(first, b"authorization"))
        async with trio.open_nursery() as nursery:
            request = await wrap_server_stream(nursery, _Replayed(stream, first))
            if refusals := self.answers.get("link"):
                await request.reject(refusals.pop(0)[0])
                return
            socket = await request.accept(subprotocol="node-link.v1")
            link = FakeLink(socket, stream, self.auto_ack)
            try:
                link.hello = json.loads(await socket.get_message())
            except ConnectionClosed:
                return  # the agent was killed before it said anything
            self._links_in.send_nowait(link)
            await link.run()

    async def _serve_rest(self, stream: trio.SocketStream, first: bytes) -> None:
        head, _, body = first.partition(b"\r\n\r\n")
        length = int(_header(first, b"content-length") or 0)
        while len(body) < length:
            body += await stream.receive_some()
        path = head.split()[1].decode()
        self.requests.append((path, json.loads(body) if body else {}))
        waiting = self.answers.get(path)
        status, answer = waiting.pop(0) if waiting else self._usual(head.split()[0].decode(), path)
        text = json.dumps(answer).encode() if answer is not None else b""
        await stream.send_all(b"HTTP/1.1 %d x\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (status, len(text)))
        await stream.send_all(text)
        await stream.aclose()

    def _usual(self, method: str, path: str) -> tuple[int, Any]:
        if path == "/v1/nodes/register":
            return 201, {"version": 1, "auth": {"node_jwt": "jwt-1", "expires_at": "2999-01-01T00:00:00Z"}}
        if path == "/v1/nodes/token":
            return 200, {"node_jwt": "jwt-2", "expires_at": "2999-01-01T00:00:00Z"}
        if path == "/v1/nodes/config" and method == "GET":
            return 200, self.config
        return (204, None) if path in ("/v1/nodes/config", "/v1/nodes/capability") else (404, {"detail": "no"})


async def _head(stream: trio.SocketStream) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        more = await stream.receive_some()
        if not more:
            return b""
        data += more
    return data


def _header(head: bytes, name: bytes) -> str:
    for line in head.split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip().decode()
    return ""


@asynccontextmanager
async def open_fake_server(port: int = 0) -> AsyncIterator[FakeServer]:
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    server = FakeServer(listeners[0].socket.getsockname()[1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, server.serve, listeners)
        yield server
        nursery.cancel_scope.cancel()


def assignment(runtime: str = "noop", script: str = "true", **fields: Any) -> dict[str, Any]:
    """An entry of `jobs.assign`."""
    spec = {"input_mode": "script", "script": script, "requires": {"runtime": runtime}, **fields.pop("spec", {})}
    return {
        "job_id": str(uuid4()),
        "attempt": 1,
        "assignment_id": str(uuid4()),
        "task_id": str(uuid4()),
        "job_spec": spec,
        "timeout_seconds": 60,
        **fields,
    }


def ref(job: dict[str, Any]) -> dict[str, Any]:
    return {"job_id": job["job_id"], "attempt": job["attempt"], "assignment_id": job["assignment_id"]}


def uuid_of(job: dict[str, Any]) -> UUID:
    return UUID(job["assignment_id"])
