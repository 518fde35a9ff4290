"""Renews the leases of the nodes that were heard."""

from collections.abc import Callable
from itertools import islice

import trio

from orchestrator.app.links import Links
from orchestrator.domain.ids import LinkId, NodeId
from orchestrator.links.registry import Registry, lost

MOST = 2000


class Renewals:
    """Heartbeats that were heard and are not committed, one a node.

    They are gathered for `gather_seconds`, so that thousands of links cost a few commits a second: nobody waits for
    one, and a lease is three heartbeats at least.
    """

    def __init__(
        self, links: Links, registry: Registry, succeeded: Callable[[], None], *, gather_seconds: float
    ) -> None:
        """`succeeded` is called after each commit."""
        self._links = links
        self._registry = registry
        self._succeeded = succeeded
        self._gather_seconds = gather_seconds
        self._due: dict[NodeId, LinkId] = {}
        self.poke: Callable[[], None] = lambda: None

    def heard(self, node: NodeId, link: LinkId) -> None:
        if not self._due:
            self.poke()
        self._due[node] = link

    async def renew(self) -> None:
        """Commits what is due, and closes the links of nodes that turn out to be another's. Raises DatabaseAway."""
        while self._due:
            await trio.sleep(self._gather_seconds)
            beats = dict(islice(self._due.items(), MOST))
            for node in beats:
                del self._due[node]
            try:
                not_mine = await self._links.renew(list(beats.items()))
            except BaseException:
                self._due = beats | self._due
                raise
            self._succeeded()
            for node, other in not_mine.items():
                link = self._registry.get(node)
                if link is not None and link.link_id == beats[node]:  # and has not dialled again meanwhile
                    link.close(lost(other))
