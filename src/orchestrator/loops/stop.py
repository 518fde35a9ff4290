"""Sends `jobs.cancel` for what has ended and is still to be stopped on a node of ours."""

from orchestrator.app.links import Links
from orchestrator.domain.ids import NodeId
from orchestrator.domain.reports import Ref
from orchestrator.links.node_link import Registry


async def stop_ended(links: Links, registry: Registry) -> None:
    nodes = [link.node_id for link in registry.all()]
    if not nodes:
        return
    by_node: dict[NodeId, list[tuple[Ref, str]]] = {}
    for node, ref, reason in await links.stops(nodes):
        by_node.setdefault(node, []).append((ref, reason))
    for node, refs in by_node.items():
        link = registry.get(node)
        if link is not None:
            link.stop(refs)
