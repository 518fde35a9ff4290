"""One client's TCP connection: Hypercorn's own, with the limits and answers that it lacks.

Beyond Hypercorn: a time limit for headers (408), its header and parse errors as problem+json, reason phrases, HTTP/1.1
only. And no send is shielded: one cut off in its middle closes the connection, since what is on the wire is torn;
shielded, one client that reads nothing would keep the whole server from stopping. And an app may leave an accepted
websocket to the connection's own task, which ends everything else that served it.
"""

import logging
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import chain
from typing import Any
from uuid import uuid4

import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, RawData, Updated
from hypercorn.protocol.events import Response as ResponseEvent
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio.task_group import TaskGroup, _handle
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState
from hypercorn.utils import parse_socket_addr

from orchestrator.api.handover import HANDOVER, HandedOver, Handover
from orchestrator.api.intake import INTAKE, Intake
from orchestrator.api.limits import Limits
from orchestrator.api.problems import PROBLEM_JSON, Problem, reason_phrase

LINGER_SECONDS = 2.0
log = logging.getLogger(__name__)


class ClientConnection(TCPServer):
    def __init__(
        self, app: AppWrapper, config: Config, context: WorkerContext, limits: Limits, stream: trio.SocketStream
    ) -> None:
        super().__init__(app, config, context, {}, stream)  # type: ignore[arg-type]
        self._limits = limits
        self._open = trio.CancelScope()
        self._busy = False
        self._idle = trio.CancelScope(deadline=trio.current_time() + config.keep_alive_timeout)
        self._turned_idle = trio.Event()
        self._reading = trio.CancelScope()
        self._left: HandedOver | None = None

    async def run(self) -> None:
        """A connection that breaks ends alone; the errors named are those that a client can cause."""
        try:
            await self._serve()
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError, h11.ProtocolError) as group:
            log.debug("a connection broke", exc_info=group)
        except* Exception:  # the boundary of one connection: logged whole, and the others go on
            log.exception("a connection ended by an error")
        finally:
            await trio.aclose_forcefully(self.stream)

    async def _serve(self) -> None:
        await self._serve_http()
        left, self._left = self._left, None
        if left is not None:
            del self.protocol, self._task_group
            await left.serve(self.stream, self.config.websocket_max_message_size)  # type: ignore[arg-type]

    async def _serve_http(self) -> None:
        socket: Any = self.stream.socket
        client = parse_socket_addr(socket.family, socket.getpeername())
        server = parse_socket_addr(socket.family, socket.getsockname())
        async with AppTasks(self._leave) as group:
            self._task_group = group
            state = ConnectionState({})
            self.protocol = ClientProtocol(  # type: ignore[assignment]
                self.app, self.config, self.context, group, state, False, client, server, self.protocol_send
            )
            self.protocol.guard(self._limits, self.linger)  # type: ignore[attr-defined]
            group.spawn(self._end_when_idle)
            await self._read_data()
            self._open.cancel()
            if self._left is not None:
                self._left.reading_ended()

    async def _read_data(self) -> None:
        """Until the client is gone, or the websocket is left to this connection."""
        while self._left is None:
            data = b""
            with self._reading, suppress(trio.ClosedResourceError, trio.BrokenResourceError):
                data = bytes(await self.stream.receive_some(MAX_RECV))
            if self._reading.cancelled_caught:
                return
            await self.protocol.handle(RawData(data))
            if not data:
                await self.protocol.handle(Closed())
                return
            if self._left is None:
                self._reading = trio.CancelScope()

    async def _leave(self, handover: Handover, intake: Intake) -> None:
        """By the app's task, its last act."""
        stream: Any = self.protocol.stream  # type: ignore[attr-defined]
        if stream is None or stream.closed or self._left is not None:  # gone, or refused by Hypercorn
            return
        self._left = HandedOver(handover, intake, stream)
        self._reading.cancel()
        await self._left.collect()

    async def _end_when_idle(self) -> None:
        """One child for the whole life of a connection; Hypercorn starts one after each request."""
        with self._open:
            with self._idle:
                await self.context.terminated.wait()
            while self._busy:  # a server that stops lets the answer go out
                await self._turned_idle.wait()
            with trio.CancelScope(shield=True):
                await self._initiate_server_close()

    def _note_idleness(self, *, idle: bool) -> None:
        self._busy = not idle
        self._idle.deadline = trio.current_time() + self.config.keep_alive_timeout if idle else math.inf
        if idle:
            self._turned_idle.set()
            self._turned_idle = trio.Event()

    async def protocol_send(self, event: Any) -> None:
        if isinstance(event, Updated):
            self._note_idleness(idle=event.idle)
            return
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        async with self.send_lock:
            try:
                await self.stream.send_all(event.data)
            except trio.Cancelled:
                await trio.aclose_forcefully(self.stream)
                raise
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                await self.protocol.handle(Closed())

    async def linger(self) -> None:
        """Reads on for a while after an error was answered: closing upon unread data could destroy the answer."""
        with trio.move_on_after(LINGER_SECONDS):
            while await self.stream.receive_some(MAX_RECV):
                pass


class AppTasks(TaskGroup):
    def __init__(self, leave: Callable[[Handover, Intake], Awaitable[None]]) -> None:
        super().__init__()
        self._leave = leave

    async def spawn_app(self, app: Any, config: Config, scope: Any, send: Any) -> Any:
        """What an app that has ended left unread is read here: Hypercorn's reader blocks on it, and with it the end."""
        intake = Intake(config.max_app_queue_size)
        extensions = scope.setdefault("extensions", {})
        extensions[INTAKE] = intake
        handover = extensions[HANDOVER] = Handover()
        receive = intake.receive if scope["type"] == "http" else intake.receive_no_message

        async def send_or_leave(message: Any) -> None:
            """The end of an app that hands its websocket over is not the websocket's."""
            if not handover.is_wanted:
                await send(message)
            elif message is None:
                await self._leave(handover, intake)

        async def app_and_rest(scope: Any, receive: Any, send: Any, sync_spawn: Any, call_soon: Any) -> None:
            try:
                await app(scope, receive, send, sync_spawn, call_soon)
            finally:
                if not (intake.gone or intake.complete or handover.is_wanted):
                    self.spawn(_read_the_rest, intake)

        self.spawn(_handle, app_and_rest, config, scope, receive, send_or_leave, None, None)
        return intake.put


async def _read_the_rest(intake: Intake) -> None:
    while not (await intake.receive())["type"].endswith(".disconnect"):
        pass


class ClientProtocol(H11Protocol):
    def guard(self, limits: Limits, linger: Any) -> None:
        self._limits = limits
        self._linger = linger
        self._begun: float | None = None
        self._waiting: trio.CancelScope | None = None
        self._head = b""

    async def handle(self, event: Any) -> None:
        incoming = isinstance(event, RawData) and bool(event.data) and self.stream is None
        if incoming and self._begun is None:
            self._begun = trio.current_time()
        await super().handle(event)
        if incoming and self._begun is not None and self._waiting is None and self.connection.our_state is h11.IDLE:
            self._waiting = trio.CancelScope(deadline=self._begun + self._limits.request_seconds)
            self.task_group.spawn(self._wait_for_headers, self._waiting)
        if isinstance(self.stream, WSStream) and self.stream.closed:
            await self.send(Closed())  # Hypercorn has refused the upgrade, and would leave the connection open

    async def _wait_for_headers(self, waiting: trio.CancelScope) -> None:
        with waiting:
            await trio.sleep_forever()
        if self._waiting is waiting:
            seconds = f"{self._limits.request_seconds:g}"
            await self._answer_at_once(Problem(408, f"the headers were not complete after {seconds} s"))
            await self.send(Closed())

    async def _send_h11_event(self, event: Any) -> None:
        """The head of an answer whose length is known waits for the first piece of it: one packet, not two."""
        try:
            data = self.connection.send(event)
        except h11.LocalProtocolError:
            if self.connection.their_state != h11.ERROR:
                raise
            return
        data, self._head = self._head + (data or b""), b""
        if isinstance(event, h11.Response) and any(name == b"content-length" for name, _ in event.headers):
            self._head = data
        elif data:
            await self.send(RawData(data=data))

    async def _create_stream(self, request: h11.Request) -> None:
        self.connection_state = ConnectionState({"begun": self._begun or trio.current_time()})
        self._begun = None
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        if any(not value.isascii() for name, value in request.headers if name.startswith(b"sec-websocket-")):
            await self._answer_at_once(Problem(400, "a Sec-WebSocket header holds more than ASCII"))
            await self.send(Closed())
            return
        await super()._create_stream(_without_extensions(request))

    async def _check_protocol(self, event: h11.Request) -> None:
        """No other protocol is offered: an upgrade that is not a websocket is served as if it had not been asked."""

    async def stream_send(self, event: Any) -> None:
        if not isinstance(event, ResponseEvent) or event.status_code < 200:
            await super().stream_send(event)
            return
        headers = list(chain(event.headers, self.config.response_headers("h11")))
        if self.keep_alive_requests >= self.config.keep_alive_max_requests:
            headers.append((b"connection", b"close"))
        reason = _reason(event.status_code)
        await self._send_h11_event(h11.Response(headers=headers, status_code=event.status_code, reason=reason))

    async def _send_error_response(self, status_code: int) -> None:
        """Hypercorn calls this for what is no request at all, and closes afterwards."""
        too_long = f"the headers are larger than {self._limits.header_bytes} bytes"
        known = {431: Problem(431, too_long)}
        await self._answer_at_once(known.get(status_code, Problem(400, "this is not an HTTP/1.1 request")))
        await self._linger()

    async def _answer_at_once(self, problem: Problem) -> None:
        request_id = uuid4().hex
        body = problem.body(request_id)
        headers: list[tuple[bytes, bytes]] = [
            (b"content-type", PROBLEM_JSON.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"x-request-id", request_id.encode()),
            (b"connection", b"close"),
            *self.config.response_headers("h11"),
        ]
        status = problem.status
        await self._send_h11_event(h11.Response(status_code=status, headers=headers, reason=_reason(status)))
        await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())
        log.info("refused before it was a request: %s", problem.detail)


def _without_extensions(request: h11.Request) -> h11.Request:
    """Compression is not agreed on: a small frame that unpacks to a huge one would have no limit."""
    kept = [(name, value) for name, value in request.headers if name != b"sec-websocket-extensions"]
    if len(kept) == len(request.headers):
        return request
    return h11.Request(method=request.method, target=request.target, headers=kept, http_version=request.http_version)


def _reason(status: int) -> bytes:
    try:
        return reason_phrase(status).encode()
    except ValueError:
        return b""
