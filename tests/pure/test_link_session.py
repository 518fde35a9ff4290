"""The table of who may send what: every sender, state and type is walked."""

from itertools import product
from typing import get_args

import pytest

from node_link.messages import MESSAGES, Message
from node_link.session import TABLE, IllegalMessage, LinkState, Sender, after

SENDERS: tuple[Sender, ...] = get_args(Sender)


def allowed(sender: Sender, state: LinkState, message: type[Message]) -> bool:
    """The rule in words, apart from the table: greet, be welcomed, then work; an error at any time."""
    kind = message.model_fields["type"].default
    if kind == "error":
        return True
    if state is LinkState.OPENED:
        return (sender, kind) == ("node", "hello")
    if state is LinkState.GREETED:
        return (sender, kind) == ("server", "welcome")
    return kind not in ("hello", "welcome") and message.sender in (sender, "both")


@pytest.mark.parametrize(("sender", "state", "message"), list(product(SENDERS, LinkState, MESSAGES)))
def test_each_message_is_legal_exactly_where_the_rule_says(
    sender: Sender, state: LinkState, message: type[Message]
) -> None:
    kind = message.model_fields["type"].default
    if allowed(sender, state, message):
        following = {"hello": LinkState.GREETED, "welcome": LinkState.LINKED}.get(kind, state)
        assert after(sender, state, kind) is following
    else:
        with pytest.raises(IllegalMessage, match=kind):
            after(sender, state, kind)


def test_the_table_names_every_sender_and_state_and_no_unknown_type() -> None:
    assert set(TABLE) == set(product(SENDERS, LinkState))
    kinds = {message.model_fields["type"].default for message in MESSAGES}
    assert all(set(entries) <= kinds for entries in TABLE.values())
