"""One request and its answer, with their limits."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio

from orchestrator.api.limits import Limits
from orchestrator.api.problems import PROBLEM_JSON, Problem

Message = Mapping[str, Any]
PIECE = 64 * 1024
LINGER_SECONDS = 2.0


class Exchange:
    def __init__(
        self,
        limits: Limits,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
        request_id: str,
    ) -> None:
        self._limits = limits
        self._receive = receive
        self._send = send
        self._request_id = request_id
        self._seen = 0
        self._complete = False
        self._too_large = False
        self._scope = trio.CancelScope()
        self.status = 0

    async def run(self, app: Callable[..., Awaitable[None]], scope: dict[str, Any], begun: float) -> None:
        if declared_length(scope["headers"]) > self._limits.body_bytes:
            await self._refuse(self._body_too_large())
            return
        self._scope.deadline = begun + self._limits.request_seconds
        with self._scope:
            await app(scope, self.receive, self.send)
        if self._scope.cancelled_caught and not self.status:
            await self._refuse(self._why())

    def _why(self) -> Problem:
        if self._too_large:
            return self._body_too_large()
        if not self._complete:
            seconds = f"{self._limits.request_seconds:g}"
            return Problem(408, f"the request was not complete after {seconds} s: send it again")
        return Problem(503, "no answer in time: try again later", headers={"Retry-After": "5"})

    def _body_too_large(self) -> Problem:
        return Problem(413, f"the body is larger than {self._limits.body_bytes} bytes")

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._seen += len(message.get("body", b""))
            if self._seen > self._limits.body_bytes and not self.status:
                self._too_large = True
                self._scope.cancel()
                await trio.lowlevel.checkpoint()
            if not message.get("more_body", False):
                self._complete = True
                self._progress()
        return message

    async def send(self, message: Message) -> None:
        """In pieces, so that a slow client is told from one that takes nothing."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            await self._send({**message, "headers": self._headers(message.get("headers", []))})
            return
        body = message.get("body", b"")
        last = not message.get("more_body", False)
        while len(body) > PIECE:
            await self._send({**message, "body": body[:PIECE], "more_body": True})
            self._progress()
            body = body[PIECE:]
        message = {**message, "body": body}
        await (self._finish(message) if last else self._send(message))
        self._progress()

    def _progress(self) -> None:
        if self._complete or self.status:
            self._scope.deadline = trio.current_time() + self._limits.progress_seconds

    def _headers(self, headers: Any) -> list[tuple[bytes, bytes]]:
        kept = [(name, value) for name, value in headers if name.lower() != b"x-request-id"]
        return [*kept, (b"x-request-id", self._request_id.encode())]

    async def _finish(self, message: Message) -> None:
        """The end of an answer: what the client still sends is taken off its reader meanwhile, which else blocks."""
        if self._complete:
            await self._send(message)
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._drain)
            await self._send(message)
            nursery.cancel_scope.cancel()

    async def _drain(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _refuse(self, problem: Problem) -> None:
        """The whole answer at once, then a while of reading on: closing upon unread data could destroy it."""
        self.status = problem.status
        body = problem.body(self._request_id)
        headers = [
            (b"content-type", PROBLEM_JSON.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            *((name.encode(), value.encode()) for name, value in problem.headers.items()),
        ]
        await self._send({"type": "http.response.start", "status": self.status, "headers": self._headers(headers)})
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
        if not self._complete:
            with trio.move_on_after(LINGER_SECONDS):
                while (message := await self._receive())["type"] == "http.request" and message.get("more_body"):
                    pass
        await self._finish({"type": "http.response.body", "body": b"", "more_body": False})


def declared_length(headers: list[tuple[bytes, bytes]]) -> int:
    return max(
        (int(value) for name, value in headers if name.lower() == b"content-length" and value.isdigit()), default=0
    )
