"""The websocket; the only file that knows trio-websocket."""

import ssl
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit, urlunsplit

import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    open_websocket_url,
)

from node_link.messages import MAX_FRAME_BYTES, SUBPROTOCOL

CONNECT_SECONDS = 10.0
CLOSE_SECONDS = 2.0
LINK_PATH = "/v1/nodes/link"


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
    # trio-websocket may leak a stray Cancelled when a ping crosses our close: this nursery takes it.
    async with trio.open_nursery():
        try:
            async with open_websocket_url(
                link_url(base),
                ssl_context=tls if base.startswith("https:") else None,
                subprotocols=[SUBPROTOCOL],
                extra_headers=[(b"Authorization", f"Bearer {token}".encode())],
                max_message_size=MAX_FRAME_BYTES,
                connect_timeout=CONNECT_SECONDS,
                disconnect_timeout=CLOSE_SECONDS,
            ) as connection:
                await session(Socket(connection))
        except ConnectionRejected as error:
            failure = NotLinked(f"{base} answered {error.status_code}", error.status_code)
        except (HandshakeError, OSError) as error:
            failure = NotLinked(f"{base} cannot be reached: {error or type(error).__name__}")
        except Closed as error:
            failure = error
    if failure is not None:
        raise failure
