"""The outermost ASGI wrapper of every service: limits, paths, request ids, one log line a request.

It exists because of what the layers below do: an answer given before the body was read hangs a keep-alive connection,
an app cancelled in mid body deadlocks Hypercorn's reader, and no layer bounds a chunked body or a slow one.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import uuid4

import structlog
import trio

from orchestrator.api.exchange import Exchange
from orchestrator.api.limits import Limits

Scope = dict[str, Any]
Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]

OWN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
QUIET = frozenset({"/healthz", "/readyz", "/metrics"})


class Guard:
    def __init__(self, app: App, limits: Limits | None = None) -> None:
        self._app = app
        self._limits = limits or Limits()
        self._log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger("request").bind()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        facts: dict[str, object] = {}
        request_id = choose_id(scope["headers"])
        state = {**(scope.get("state") or {}), "request_id": request_id, "facts": facts}
        scope = {**scope, **plain_path(scope), "state": state}
        structlog.contextvars.bind_contextvars(request_id=request_id)  # of this request's own task
        if scope["type"] == "http":
            await self._answer(scope, receive, send, request_id, facts)
        else:
            await self._converse(scope, receive, send, request_id, facts)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, request_id: str, facts: Any) -> None:
        exchange = Exchange(self._limits, receive, send, request_id)
        begun = scope["state"].get("begun", trio.current_time())
        try:
            await exchange.run(self._app, scope, begun)
        finally:
            self._note(scope, begun, facts, status=exchange.status, method=scope["method"])

    async def _converse(self, scope: Scope, receive: Receive, send: Send, request_id: str, facts: Any) -> None:
        status = 101

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "websocket.http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", []), (b"x-request-id", request_id.encode())]}
            await send(message)

        begun = trio.current_time()
        try:
            await self._app(scope, receive, send_and_note)
        finally:
            self._note(scope, begun, facts, status=status, method="WEBSOCKET")

    def _note(self, scope: Scope, begun: float, facts: dict[str, object], **more: object) -> None:
        client = (scope.get("client") or ("",))[0]
        ms = round((trio.current_time() - begun) * 1000, 1)
        note = self._log.debug if scope["path"] in QUIET else self._log.info
        note("request", path=scope["path"], client=client, ms=ms, **more, **facts)


def choose_id(headers: list[tuple[bytes, bytes]]) -> str:
    """The client's own, if it is one that may stand in a log and a header."""
    for name, value in headers:
        if name.lower() == b"x-request-id" and OWN_ID.fullmatch(given := value.decode("latin-1")):
            return given
    return uuid4().hex


def plain_path(scope: Scope) -> Scope:
    """A double or trailing slash is served as if it were not there."""
    raw = scope.get("raw_path") or b""
    return {
        "path": re.sub("//+", "/", scope["path"]).rstrip("/") or "/",
        "raw_path": re.sub(b"//+", b"/", raw).rstrip(b"/") or b"/",
    }
