"""Brings what each link believes its node to hold in line with the rows, and asks the node to stop what has ended."""

import trio

from orchestrator.app.links import Links, Occupied
from orchestrator.domain.ids import NodeId
from orchestrator.links.registry import Registry


async def sync_held(links: Links, registry: Registry) -> None:
    """A claim whose commit went unanswered, or another control-plane's, shows here: the rows alone are true."""
    nodes = [link.node_id for link in registry.all()]
    if not nodes:
        return
    asked_at = trio.current_time()
    by_node: dict[NodeId, list[Occupied]] = {node: [] for node in nodes}
    for node, occupied in await links.occupied(nodes):
        by_node[node].append(occupied)
    for node, rows in by_node.items():
        link = registry.get(node)
        if link is None or link.made_at > asked_at:
            continue
        held = link.compare(rows, asked_at)
        link.stop([(row.ref, row.stop_reason) for row in held if row.stop_reason])
