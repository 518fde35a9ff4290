"""The nodes, for everybody to see; admins decide about them."""

from typing import Any

from quart import Blueprint, Response, request

from orchestrator.api.auth import UserGate
from orchestrator.api.http import reply
from orchestrator.app.nodes import Nodes
from orchestrator.domain.nodes import Node
from orchestrator.domain.paging import Wanted
from orchestrator.domain.times import rfc3339


def node_view(node: Node, *, whole: bool) -> dict[str, Any]:
    """`whole`: with what names the machine, for admins."""
    view = {
        "node_id": str(node.id),
        "slug": node.slug,
        "status": node.status.value,
        "enabled": node.enabled,
        "link": "up" if node.linked else "down",
        "last_heartbeat": None if node.last_seen_at is None else rfc3339(node.last_seen_at),
        "slots": node.slots,
        "free_slots": node.free_slots,
        "agent_version": node.agent_version,
        "capability_summary": node.capability_summary(),
    }
    if not whole:
        return view
    named = {"name": node.display_name, "address": node.address}
    known = {name: value for name, value in named.items() if value is not None}
    return {**view, **known, "labels": node.labels, "capability": dict(node.capability)}


def node_routes(nodes: Nodes, gate: UserGate) -> Blueprint:
    routes = Blueprint("nodes", __name__, url_prefix="/v1/nodes")

    @routes.get("")
    async def list_all() -> Response:
        who = await gate.authenticated()
        page = await nodes.page(Wanted.of(request.args.get("limit"), request.args.get("cursor")))
        further = {} if page.next_cursor is None else {"next_cursor": page.next_cursor}
        return reply({"nodes": [node_view(node, whole=who.is_admin) for node in page.items], **further})

    @routes.get("/<slug>")
    async def get(slug: str) -> Response:
        who = await gate.authenticated()
        return reply(node_view(await nodes.get(slug), whole=who.is_admin))

    @routes.post("/<slug>/drain")
    async def drain(slug: str) -> Response:
        await gate.require_admin()
        return reply(node_view(await nodes.drain(slug), whole=True))

    @routes.post("/<slug>/enable")
    async def enable(slug: str) -> Response:
        await gate.require_admin()
        return reply(node_view(await nodes.enable(slug), whole=True))

    @routes.post("/<slug>/disable")
    async def disable(slug: str) -> Response:
        await gate.require_admin()
        return reply(node_view(await nodes.disable(slug), whole=True))

    return routes
