"""A websocket as the links need it, and the next legal message on it."""

from typing import Protocol

from node_link import codec, messages
from node_link.session import CloseCode, IllegalMessage, LinkState, after
from orchestrator.links.close import LinkClose


class ChannelClosed(Exception):
    """The peer is gone, or has said goodbye."""


class Channel(Protocol):
    """A websocket as this layer needs it."""

    async def receive(self) -> str | bytes: ...
    async def send(self, text: str) -> None: ...
    async def close(self, code: int, reason: str) -> None: ...


async def next_message(channel: Channel, state: LinkState) -> tuple[messages.Message, LinkState]:
    """The next message that is legal; unknown types are answered and passed over."""
    while True:
        frame = await channel.receive()
        try:
            message = codec.decode(frame)
            return message, after("node", state, message.type)
        except codec.UnknownType as unknown:
            answer = messages.LinkError(code="unknown_type", message=str(unknown), message_type=unknown.message_type)
            await channel.send(codec.encode(answer))
        except codec.FrameTooLarge as error:
            raise LinkClose(CloseCode.FRAME_TOO_LARGE, str(error)) from error
        except (codec.BadFrame, IllegalMessage) as error:
            raise LinkClose(CloseCode.PROTOCOL, str(error)) from error
