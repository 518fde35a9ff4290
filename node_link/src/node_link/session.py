"""Who may send what, and when: one table, no I/O. An illegal message ends the link with close code 4400."""

from enum import IntEnum, StrEnum
from typing import Literal

from node_link.messages import MESSAGES

Sender = Literal["node", "server"]


class LinkState(StrEnum):
    OPENED = "opened"
    """The websocket is up; the server waits for `hello`."""
    GREETED = "greeted"
    """`hello` was sent; the server is taking the node over."""
    LINKED = "linked"
    """`welcome` was sent; work flows."""


class CloseCode(IntEnum):
    STOPPING = 1001
    """The end that closes is going away; jobs run on."""
    REFUSED = 1008
    """The node was disabled or its token revoked."""
    FRAME_TOO_LARGE = 1009
    TRY_ANOTHER = 1013
    """This control-plane cannot serve the link now, or a gap has to be sent again: dial again."""
    PROTOCOL = 4400
    """Not JSON, wrong fields, or illegal in this state."""
    TOKEN = 4401
    """The node's token has expired or was revoked: get a new one, dial again."""
    SILENT = 4408
    """Nothing was heard for one and a half heartbeats."""
    TAKEN_OVER = 4409
    """Another link of this node holds it now."""


_EITHER: dict[str, LinkState | None] = {"error": None}
_WORK_OF_NODE: dict[str, LinkState | None] = {
    message.model_fields["type"].default: None
    for message in MESSAGES
    if message.sender in ("node", "both") and message.model_fields["type"].default != "hello"
}
_WORK_OF_SERVER: dict[str, LinkState | None] = {
    message.model_fields["type"].default: None
    for message in MESSAGES
    if message.sender in ("server", "both") and message.model_fields["type"].default != "welcome"
}

TABLE: dict[tuple[Sender, LinkState], dict[str, LinkState | None]] = {
    ("node", LinkState.OPENED): {"hello": LinkState.GREETED, **_EITHER},
    ("server", LinkState.OPENED): {**_EITHER},
    ("node", LinkState.GREETED): {**_EITHER},
    ("server", LinkState.GREETED): {"welcome": LinkState.LINKED, **_EITHER},
    ("node", LinkState.LINKED): _WORK_OF_NODE,
    ("server", LinkState.LINKED): _WORK_OF_SERVER,
}
"""(who sends, state) → the types that are legal → the state after it (None: unchanged)."""


class IllegalMessage(Exception):
    """The peer sent a message that its state does not allow; the link closes with 4400."""


def after(sender: Sender, state: LinkState, message_type: str) -> LinkState:
    """The state after `message_type`. Raises IllegalMessage where the table has no such entry."""
    allowed = TABLE[sender, state]
    if message_type not in allowed:
        raise IllegalMessage(f"a {sender} may not send {message_type} while {state}")
    return allowed[message_type] or state
