"""One node's websocket, from hello to close. The only place besides a node's job where any error ends just its unit."""

import logging

import trio

from node_link import messages
from node_link.session import CloseCode, LinkState
from orchestrator.domain.errors import DatabaseAway
from orchestrator.domain.ids import NodeId
from orchestrator.links.channel import Channel, ChannelClosed, next_message
from orchestrator.links.close import LinkClose
from orchestrator.links.service import LinkService
from orchestrator.links.session import CLOSE_SECONDS, Session

log = logging.getLogger(__name__)

HELLO_SECONDS = 10.0


async def serve_link(channel: Channel, node_id: NodeId, slug: str, service: LinkService) -> None:
    """Returns when the link is closed, for whatever reason; only cancellation leaves it as an exception."""
    why: LinkClose | None = None
    try:
        hello = await _greet(channel, slug)
        await Session(channel, node_id, slug, service, hello).run()
    except* LinkClose as group:
        why = _first(group)
    except* ChannelClosed as closed:
        log.info("link ended: %s", closed.exceptions[0], extra={"node_slug": slug})
    except* DatabaseAway:
        log.warning("link closed: the database is away", extra={"node_slug": slug})
        why = LinkClose(CloseCode.TRY_ANOTHER, "the database is away")
    except* Exception:  # the boundary of one link: logged whole, and the node dials again
        log.exception("link ended by an error", extra={"node_slug": slug})
        why = LinkClose(CloseCode.TRY_ANOTHER, "internal error")
    if why is None:
        return
    log.info("link closed", extra={"node_slug": slug, "code": int(why.code), "reason": why.reason})
    with trio.move_on_after(CLOSE_SECONDS, shield=True):
        await channel.close(int(why.code), why.reason[:120])


def _first(group: BaseExceptionGroup[LinkClose]) -> LinkClose:
    for error in group.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    raise group


async def _greet(channel: Channel, slug: str) -> messages.Hello:
    with trio.move_on_after(HELLO_SECONDS):
        while True:
            message, _ = await next_message(channel, LinkState.OPENED)
            if isinstance(message, messages.Hello):
                break
        if message.protocol_version != messages.PROTOCOL:
            text = f"protocol version {message.protocol_version} is not spoken here; {messages.PROTOCOL} is"
            raise LinkClose(CloseCode.PROTOCOL, text)
        if message.node_slug != slug:
            raise LinkClose(CloseCode.PROTOCOL, "node_slug does not match the token")
        return message
    raise LinkClose(CloseCode.SILENT, f"no hello within {HELLO_SECONDS:.0f} s")
