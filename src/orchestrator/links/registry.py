"""Which nodes are linked to this process, by which link."""

from collections.abc import Collection, Mapping
from typing import Literal

import trio

from node_link.session import CloseCode
from orchestrator.domain.ids import LinkId, NodeId
from orchestrator.links.close import LinkClose
from orchestrator.links.node_link import NodeLink


class Registry:
    """The links of this process, by node; changed by the links themselves, read by the loops."""

    def __init__(self) -> None:
        self._links: dict[NodeId, NodeLink] = {}
        self._gone = trio.Event()
        self.mode: Literal["serving", "away", "stopping"] = "serving"

    async def drained(self) -> None:
        """Waits until the last link is gone."""
        while self._links:
            await self._gone.wait()

    def add(self, link: NodeLink) -> None:
        older = self._links.get(link.node_id)
        if older is not None:
            older.close(LinkClose(CloseCode.TAKEN_OVER, "this node has linked again"))
        self._links[link.node_id] = link

    def remove(self, link: NodeLink) -> None:
        if self._links.get(link.node_id) is link:
            del self._links[link.node_id]
            self._gone.set()
            self._gone = trio.Event()

    def all(self) -> Collection[NodeLink]:
        return list(self._links.values())

    def get(self, node: NodeId) -> NodeLink | None:
        return self._links.get(node)

    def lost(self, not_mine: Mapping[NodeId, LinkId | None]) -> None:
        """Closes the links of nodes that a transaction found to be another's, or nobody's."""
        for node, other in not_mine.items():
            link = self._links.get(node)
            if link is not None and link.link_id != other:
                link.close(lost(other))

    def close_all(self, why: LinkClose) -> None:
        for link in self.all():
            link.close(why)


def lost(other: LinkId | None) -> LinkClose:
    if other is None:
        return LinkClose(CloseCode.TRY_ANOTHER, "the lease of this node has ended: link again")
    return LinkClose(CloseCode.TAKEN_OVER, "another link of this node holds it now")
