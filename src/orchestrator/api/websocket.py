"""One accepted websocket on its stream, without tasks of its own: whoever serves it reads and sends."""

from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import trio
from wsproto.connection import Connection, ConnectionState
from wsproto.events import CloseConnection, Message, Ping, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError

READ_BYTES = 64 << 10
LINGER_SECONDS = 1.0


class Gone(Exception):
    """The peer hung up, said goodbye, or broke the protocol of websockets."""


class WebSocket:
    """For one reader; several tasks may send."""

    def __init__(
        self,
        stream: trio.SocketStream,
        connection: Connection,
        max_bytes: int,
        early: Iterable[str | bytes],
        begun: Any,
    ) -> None:
        """`early`: whole messages that came already; `begun`: the pieces of one that has not ended yet, or None."""
        self._stream = stream
        self._connection = connection
        self._max_bytes = max_bytes
        self._early: deque[str | bytes] = deque(early)
        self._pieces: list[str | bytes] = [] if not begun else [begun]
        self._length = len(begun) if begun else 0
        self._sending = trio.Lock()
        self._torn = False

    async def receive(self) -> str | bytes:
        """The next message, in as many pieces as it may have come. Raises Gone. Cancelled, it has lost nothing."""
        while not self._early:
            event = next(self._connection.events(), None)
            match event:
                case None:
                    await self._read()
                case Message():
                    whole = await self._join(event)
                    if whole is not None:
                        return whole
                case Ping():
                    await self._send(event.response())
                case CloseConnection():
                    await self._answer(event)
                    raise Gone(f"the node closed it with {event.code} {event.reason or ''}".rstrip())
        return self._early.popleft()

    async def send(self, text: str) -> None:
        """Raises Gone. Cancelled in the middle, the connection is of no use any more."""
        await self._send(TextMessage(text))

    async def close(self, code: int, reason: str) -> None:
        """Says why, and waits a while for the peer to have read it: hanging up upon unread data could destroy it."""
        with suppress(Gone):
            await self._send(CloseConnection(code, reason))
            with trio.move_on_after(LINGER_SECONDS), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._stream.send_eof()
                while await self._stream.receive_some(READ_BYTES):
                    pass

    async def _read(self) -> None:
        try:
            data = await self._stream.receive_some(READ_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise Gone("the connection broke") from error
        if not data:
            raise Gone("the node hung up")
        self._connection.receive_data(bytes(data))

    async def _join(self, event: Message[Any]) -> str | bytes | None:
        """The message that this piece completes."""
        self._length += len(event.data)
        if self._length > self._max_bytes:
            await self.close(CloseReason.MESSAGE_TOO_BIG, "")
            raise Gone(f"a message of more than {self._max_bytes} bytes")
        self._pieces.append(event.data)
        if not event.message_finished:
            return None
        pieces, self._pieces, self._length = self._pieces, [], 0
        whole: Any = pieces[0] if len(pieces) == 1 else type(pieces[0])().join(pieces)  # type: ignore[arg-type]
        return whole if isinstance(whole, str) else bytes(whole)

    async def _answer(self, goodbye: CloseConnection) -> None:
        """To the peer's own, or to frames that are none: wsproto reads those as a goodbye that we are to say."""
        if self._connection.state is ConnectionState.REMOTE_CLOSING:
            await self._send(goodbye.response())
        elif self._connection.state is ConnectionState.OPEN:
            await self.close(goodbye.code, goodbye.reason or "")
            raise Gone(f"the node broke the protocol of websockets: {goodbye.reason or goodbye.code}")

    async def _send(self, event: Any) -> None:
        async with self._sending:
            if self._torn:
                raise Gone("the connection is torn")
            try:
                data = self._connection.send(event)
            except LocalProtocolError as error:
                raise Gone("it is closing") from error
            self._torn = True
            try:
                await self._stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise Gone("the connection broke") from error
            self._torn = False
