"""What a node has reported and no commit has begun to take: bounded by count and by weight."""

from collections import deque
from collections.abc import Iterable

from orchestrator.app.reports import weight_of
from orchestrator.domain.reports import Fact

Entry = tuple[int | None, Fact | None]
"""Its position in the node's spool, if it has one, and the fact, if it can be told."""

MOST_FACTS = 1000
MOST_WEIGHT = 1 << 20
"""In one transaction, which must not take long: output may be 64 KiB a record."""
ROOM = 4000
ROOM_WEIGHT = 4 << 20


class Backlog:
    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        self._weight = 0

    def __bool__(self) -> bool:
        return bool(self._entries)

    @property
    def is_full(self) -> bool:
        return len(self._entries) > ROOM or self._weight > ROOM_WEIGHT

    def add(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self._entries.append(entry)
            self._weight += _weight(entry)

    def take(self) -> list[Entry]:
        """The next for one commit, in their order; at least one if there is any."""
        taken: list[Entry] = []
        weight = 0
        while self._entries and len(taken) < MOST_FACTS:
            more = _weight(self._entries[0])
            if taken and weight + more > MOST_WEIGHT:
                break
            weight += more
            taken.append(self._entries.popleft())
        self._weight -= weight
        return taken


def _weight(entry: Entry) -> int:
    return 0 if entry[1] is None else weight_of(entry[1])
