"""The websocket; the only file that knows trio-websocket."""

import ssl
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, wrap_client_stream
from wsproto.utilities import LocalProtocolError

from node_agent.tls import why_unreachable
from node_link.messages import MAX_FRAME_BYTES, SUBPROTOCOL

CONNECT_SECONDS = 10.0
CLOSE_SECONDS = 2.0
LINK_PATH = "/v1/nodes/link"

T = TypeVar("T")


class Closed(Exception):
    """The peer, or the network, ended the link; 1006 is without a word."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"closed with {code} {reason}".rstrip())
        self.code = code
        self.reason = reason


class NotLinked(Exception):
    """The dial failed; with a status if an HTTP server answered."""

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


class Socket:
    def __init__(self, connection: WebSocketConnection) -> None:
        self._connection = connection

    async def send(self, text: str) -> None:
        """Raises Closed."""
        try:
            await self._connection.send_message(text)
        except ConnectionClosed as error:
            raise _closed(error) from error

    async def receive(self) -> str | bytes:
        """Raises Closed."""
        try:
            return await self._connection.get_message()
        except ConnectionClosed as error:
            raise _closed(error) from error

    async def close(self, code: int, reason: str) -> None:
        """Says why; does not wait for a peer that has gone."""
        with trio.move_on_after(CLOSE_SECONDS, shield=True):
            await self._connection.aclose(code, reason.encode()[:120].decode(errors="ignore"))


def _closed(error: ConnectionClosed) -> Closed:
    if error.reason is None:
        return Closed(1006, "")
    return Closed(error.reason.code, error.reason.reason or "")


def link_url(base: str) -> str:
    parts = urlsplit(base)
    scheme = {"http": "ws", "https": "wss"}[parts.scheme]
    return urlunsplit((scheme, parts.netloc, parts.path.rstrip("/") + LINK_PATH, "", ""))


async def with_socket(
    base: str, token: str, tls: ssl.SSLContext | None, session: Callable[[Socket], Awaitable[None]]
) -> None:
    """Dials, runs `session`, and has closed the socket when it returns. Raises NotLinked or Closed."""
    failure: Exception | None = None
    line = await _open_line(base, tls)
    try:
        async with trio.open_nursery() as nursery:
            connection = await _shake_hands(nursery, line, base, token)
            try:
                await session(Socket(connection))
            finally:
                with trio.move_on_after(CLOSE_SECONDS):  # not shielded: the reader is cancelled with us
                    await connection.aclose()
            nursery.cancel_scope.cancel()
    except* ConnectionRejected as group:
        status = _first(group).status_code
        failure = NotLinked(f"{base} answered {status}", status)
    except* (NotLinked, Closed) as group:
        failure = _first(group)
    except* LocalProtocolError:
        failure = Closed(1006, "")  # trio-websocket's reader raises it when a ping of the server crosses our close
    finally:
        await trio.aclose_forcefully(line)  # trio-websocket leaves it open when the peer hung up first
    if failure is not None:
        raise failure


async def _open_line(base: str, tls: ssl.SSLContext | None) -> "_Line":
    """Raises NotLinked."""
    url = urlsplit(link_url(base))
    try:
        with trio.fail_after(CONNECT_SECONDS):
            return _Line(await _dial(url.hostname or "", url.port, tls if url.scheme == "wss" else None))
    except (OSError, trio.TooSlowError, trio.BrokenResourceError) as error:
        why = isinstance(error, trio.BrokenResourceError) and error.__cause__
        raise NotLinked(f"{base} cannot be reached: {why_unreachable(why or error)}") from error


async def _shake_hands(nursery: trio.Nursery, line: "_Line", base: str, token: str) -> WebSocketConnection:
    """Raises NotLinked, at once also when the peer hangs up instead of answering, which trio-websocket sits out."""
    url = urlsplit(link_url(base))
    with trio.move_on_after(CONNECT_SECONDS) as waiting:
        line.when_lost = waiting.cancel
        connection = await wrap_client_stream(
            nursery,
            line,  # type: ignore[arg-type]  # any stream will do
            url.netloc.rpartition("@")[2],
            url.path,
            subprotocols=[SUBPROTOCOL],
            extra_headers=[(b"Authorization", f"Bearer {token}".encode())],
            max_message_size=MAX_FRAME_BYTES,
        )
        line.when_lost = None
        return connection
    raise NotLinked(f"{base} cannot be reached: it hung up, or did not answer in {CONNECT_SECONDS:.0f} s")


async def _dial(host: str, port: int | None, tls: ssl.SSLContext | None) -> trio.abc.Stream:
    if tls is None:
        return await trio.open_tcp_stream(host, port or 80)
    stream = await trio.open_ssl_over_tcp_stream(host, port or 443, ssl_context=tls, https_compatible=True)
    try:
        await stream.do_handshake()  # here, so that what is wrong with a certificate is told
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


class _Line(trio.abc.Stream):
    """The stream below the websocket; tells when the peer has hung up."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.when_lost: Callable[[], None] | None = None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._told(self._stream.send_all(data))

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._told(self._stream.receive_some(max_bytes))
        if not data:
            self._tell()
        return data

    async def aclose(self) -> None:
        self._tell()
        await self._stream.aclose()

    async def _told(self, doing: Awaitable[T]) -> T:
        try:
            return await doing
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._tell()
            raise

    def _tell(self) -> None:
        if self.when_lost is not None:
            self.when_lost()


def _first(group: BaseExceptionGroup[Any]) -> Any:
    one = group.exceptions[0]
    return _first(one) if isinstance(one, BaseExceptionGroup) else one
