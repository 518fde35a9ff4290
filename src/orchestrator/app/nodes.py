"""What people see of the nodes, and what operators decide about them."""

from collections.abc import Awaitable, Callable

from orchestrator.app.clock import now
from orchestrator.app.node_configs import NO_NODE
from orchestrator.app.registration import next_second
from orchestrator.app.settle import settle
from orchestrator.domain.errors import NotFound
from orchestrator.domain.ids import NodeId
from orchestrator.domain.nodes import SLUG, Node
from orchestrator.domain.paging import Page, Wanted, cut_page
from orchestrator.store import nodes
from orchestrator.store.bells import ring_nodes
from orchestrator.store.db import Connection, Database

Change = Callable[[Connection, NodeId], Awaitable[None]]


class Nodes:
    def __init__(self, db: Database) -> None:
        self._db = db

    async def page(self, wanted: Wanted) -> Page[Node]:
        async def find(conn: Connection) -> list[Node]:
            return await nodes.view_page(conn, wanted.after, wanted.limit + 1)

        found = await self._db.read(find)
        return cut_page(found, [node.slug for node in found], wanted.limit)

    async def get(self, slug: str) -> Node:
        _check_slug(slug)

        async def find(conn: Connection) -> Node:
            return await _view(conn, slug)

        return await self._db.read(find)

    async def drain(self, slug: str) -> Node:
        """No new work; what runs there ends. Raises NotFound."""
        at = now()
        return await self._change(slug, lambda conn, node: nodes.drain_node(conn, node, at))

    async def enable(self, slug: str) -> Node:
        """Also ends a drain. Raises NotFound."""
        return await self._change(slug, nodes.enable_node)

    async def disable(self, slug: str) -> Node:
        """Its calls are refused from now on, with any token it has; the control-planes end its link and its work."""
        valid_from = next_second()
        return await self._change(slug, lambda conn, node: nodes.disable_node(conn, node, valid_from))

    async def _change(self, slug: str, change: Change) -> Node:
        _check_slug(slug)

        async def work(conn: Connection) -> Node:
            node = await nodes.lock_by_slug(conn, slug)
            if node is None:
                raise NotFound(NO_NODE)
            await change(conn, node.id)
            await ring_nodes(conn)
            return await _view(conn, slug)

        return await settle(self._db, work)

    async def why_not_dispatchable(self) -> str | None:
        """Why no job would be taken now however idle the nodes are; None when one would."""

        async def find(conn: Connection) -> str | None:
            if any(node.takes_work for node in await nodes.view_linked(conn)):
                return None
            if not await nodes.count_nodes(conn):
                return "no node has registered yet: start one with cynode-node"
            return "no node is linked and ready for work: see `cynode node list`"

        return await self._db.read(find)


def _check_slug(slug: str) -> None:
    """What cannot be a slug is nobody's."""
    if not SLUG.fullmatch(slug):
        raise NotFound(NO_NODE)


async def _view(conn: Connection, slug: str) -> Node:
    node = await nodes.view_node(conn, slug)
    if node is None:
        raise NotFound(NO_NODE)
    return node
