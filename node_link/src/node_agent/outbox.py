"""What is to be said on the present link besides reports. Without a link it is dropped: hello says it all again."""

from collections import deque

from node_agent.bell import Bell
from node_link.messages import Message

MOST_MESSAGES = 1000


class Outbox:
    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self._messages: deque[Message] = deque()
        self._linked = False
        self.overflowed = False
        """The server does not read what it asks for: the link is to be closed."""

    def open(self) -> None:
        """The link may carry work from now on."""
        self._messages.clear()
        self._linked = True
        self.overflowed = False

    def close(self) -> None:
        self._linked = False
        self._messages.clear()

    @property
    def linked(self) -> bool:
        return self._linked

    def post(self, message: Message) -> None:
        if not self._linked:
            return
        if len(self._messages) >= MOST_MESSAGES:
            self.overflowed = True
        else:
            self._messages.append(message)
        self._bell.ring()

    def take(self) -> Message | None:
        return self._messages.popleft() if self._messages else None
