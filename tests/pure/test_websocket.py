"""The server's end of an accepted websocket, over a stream in memory; the other end is wsproto's client."""

import pytest
import trio
import trio.testing
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import CloseConnection, Event, Ping, Pong, TextMessage

from orchestrator.api.websocket import Gone, WebSocket

MOST = 1000


class Peer:
    def __init__(self, *early: str) -> None:
        self.stream, other = trio.testing.memory_stream_pair()
        self.connection = Connection(ConnectionType.CLIENT)
        self.websocket = WebSocket(other, Connection(ConnectionType.SERVER), MOST, early, None)  # type: ignore[arg-type]

    def frames(self, *events: Event) -> bytes:
        return b"".join(self.connection.send(event) for event in events)

    async def say(self, *events: Event) -> None:
        await self.stream.send_all(self.frames(*events))

    async def hear(self) -> Event:
        while (event := next(self.connection.events(), None)) is None:
            self.connection.receive_data(await self.stream.receive_some() or None)
        return event


async def test_what_came_before_it_was_handed_over_comes_first() -> None:
    peer = Peer("first")
    await peer.say(TextMessage("second"))
    assert [await peer.websocket.receive() for _ in range(2)] == ["first", "second"]


async def test_a_message_in_pieces_is_one() -> None:
    peer = Peer()
    await peer.say(TextMessage("one ", message_finished=False), Ping(b"?"), TextMessage("message"))
    assert await peer.websocket.receive() == "one message"
    assert await peer.hear() == Pong(b"?")


async def test_messages_that_come_with_the_goodbye_are_heard_before_it() -> None:
    peer = Peer()
    await peer.say(TextMessage("one"), TextMessage("two"), CloseConnection(1000))
    assert [await peer.websocket.receive() for _ in range(2)] == ["one", "two"]
    with pytest.raises(Gone, match="1000"):
        await peer.websocket.receive()
    assert isinstance(await peer.hear(), CloseConnection)


async def test_a_cancelled_receive_loses_nothing() -> None:
    peer = Peer()
    frame = peer.frames(TextMessage("whole"))
    await peer.stream.send_all(frame[:4])
    with trio.move_on_after(0):
        await peer.websocket.receive()
    await peer.stream.send_all(frame[4:])
    assert await peer.websocket.receive() == "whole"


async def test_a_message_that_is_too_long_is_answered_with_1009(nursery: trio.Nursery) -> None:
    peer = Peer()
    nursery.start_soon(peer.say, TextMessage("x" * (MOST + 1)))
    async with trio.open_nursery() as both:

        @both.start_soon
        async def server() -> None:
            with pytest.raises(Gone, match="more than 1000 bytes"):
                await peer.websocket.receive()

        goodbye = await peer.hear()
        assert isinstance(goodbye, CloseConnection)
        assert goodbye.code == 1009
        await peer.stream.aclose()


async def test_frames_that_are_none_are_answered_with_1002() -> None:
    peer = Peer()
    await peer.stream.send_all(bytes([0xF1, 0x82, 0, 0, 0, 0]) + b"{}")  # with all reserved bits
    async with trio.open_nursery() as both:

        @both.start_soon
        async def server() -> None:
            with pytest.raises(Gone, match="protocol"):
                await peer.websocket.receive()

        goodbye = await peer.hear()
        assert isinstance(goodbye, CloseConnection)
        assert goodbye.code == 1002
        await peer.stream.aclose()


async def test_a_peer_that_hangs_up_is_gone_and_so_is_what_is_sent_to_it() -> None:
    peer = Peer()
    await peer.stream.aclose()
    with pytest.raises(Gone, match="hung up"):
        await peer.websocket.receive()
    with pytest.raises(Gone):
        await peer.websocket.send("anybody?")
    assert peer.connection.state is ConnectionState.OPEN
