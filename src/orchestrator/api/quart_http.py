"""Quart's handling of one HTTP request, in one task where its body is small.

Quart-Trio's own opens a nursery for each: one child reads the body and waits for the client to be gone, one handles. A
small body is read before the handler begins here, and that the client is gone is told by the connection itself.
"""

from typing import Any

import trio
from quart.utils import encode_headers
from quart.wrappers.response import DataBody
from quart_trio.asgi import TrioASGIHTTPConnection

from orchestrator.api.intake import INTAKE, Intake

SMALL_BODY = 64 << 10


class HttpConnection(TrioASGIHTTPConnection):
    async def __call__(self, receive: Any, send: Any) -> None:
        intake: Intake | None = (self.scope.get("extensions") or {}).get(INTAKE)  # type: ignore[assignment]
        if intake is None or not self._is_small(intake):
            await super().__call__(receive, send)
            return
        request = self._create_request_from_scope(send)
        with trio.CancelScope() as handling:
            intake.when_gone(handling.cancel)
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                request.body.append(message.get("body", b""))
                if not message.get("more_body", False):
                    break
            request.body.set_complete()
            response: Any = await self.app.handle_request(request)
            timeout = getattr(response, "timeout", ...)
            timeout = self.app.config["RESPONSE_TIMEOUT"] if timeout is ... else timeout
            with trio.move_on_after(float("inf") if timeout is None else timeout):
                await self._send_response(send, response)
        intake.when_gone(None)

    def _is_small(self, intake: Intake) -> bool:
        """There already, or not worth a task of its own."""
        if intake.complete:
            return True
        lengths = [value for name, value in self.scope["headers"] if name.lower() == b"content-length"]
        return len(lengths) == 1 and lengths[0].isdigit() and int(lengths[0]) <= SMALL_BODY

    async def _send_response(self, send: Any, response: Any) -> None:
        """An answer whose bytes are there goes out as one piece."""
        body = response.response
        if type(body) is not DataBody or body.begin != 0 or body.end != len(body.data):
            await super()._send_response(send, response)
            return
        start = {"type": "http.response.start", "status": response.status_code}
        await send({**start, "headers": encode_headers(response.headers)})
        await send({"type": "http.response.body", "body": body.data, "more_body": False})
