"""What waits to be written to the spool, and how those who wait for it are told."""

from collections.abc import Callable
from dataclasses import dataclass

import trio

from node_agent.spool_format import Kind, Ref


class Ticket:
    """Records that were added together; one wait for all of them, or one call as soon as all are settled."""

    def __init__(self, count: int) -> None:
        self.refused: set[bytes] = set()
        """The assignment ids of those that found no room."""
        self._left = count
        self.when_settled: Callable[[Ticket], None] | None = None
        self._settled = trio.Event()

    def settle(self, ref: Ref, *, refused: bool) -> None:
        if refused:
            self.refused.add(ref.assignment_id)
        self._left -= 1
        if self._left == 0:
            self._settled.set()
            if self.when_settled is not None:
                self.when_settled(self)

    async def wait(self) -> None:
        await self._settled.wait()


@dataclass(slots=True, eq=False)
class Item:
    kind: Kind
    at: float
    ref: Ref
    payload: bytes | Callable[[], bytes]
    ticket: Ticket | None = None
    written: Callable[[], None] | None = None
