"""Ends the lease of a node that nobody has renewed. A lease is a counter, not a time: nobody's clock is compared."""

import logging

import trio

from orchestrator.app.links import Links
from orchestrator.domain.errors import DatabaseAway
from orchestrator.domain.ids import NodeId

log = logging.getLogger(__name__)


class Reaper:
    """Remembers since when, on its own monotonic clock, it has read the same counter of each lease."""

    def __init__(self, links: Links, *, lease_seconds: float, heartbeat_seconds: float) -> None:
        self._links = links
        self._lease = lease_seconds
        self._heartbeat = heartbeat_seconds
        self._seen: dict[NodeId, tuple[int, float]] = {}
        self._last_read: float | None = None

    async def reap(self) -> None:
        try:
            await self._reap()
        except DatabaseAway:  # also when only commits fail: then nobody could renew
            self._seen.clear()
            raise

    async def _reap(self) -> None:
        began = trio.current_time()
        counters = await self._links.counters()
        read = trio.current_time()
        if self._last_read is None or read - self._last_read > self._heartbeat:
            self._seen.clear()  # nobody watched meanwhile, and perhaps nobody could renew
        self._last_read = read
        self._seen = {node: self._since(node, counter, read) for node, counter in counters.items()}
        for node, (counter, since) in list(self._seen.items()):
            if began - since >= self._lease:
                await self._expire(node, counter)

    def _since(self, node: NodeId, counter: int, read: float) -> tuple[int, float]:
        before = self._seen.get(node)
        return before if before is not None and before[0] == counter else (counter, read)

    async def _expire(self, node: NodeId, counter: int) -> None:
        ended = await self._links.expire(node, counter)
        self._seen.pop(node, None)
        if ended is not None:
            log.warning("lease ended", extra={"node_id": str(node), "attempts": ended})
