"""`GET /v1/nodes/link`: the websocket's upgrade; once it is accepted, its connection serves the link."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import cast

from quart import Blueprint, Response, websocket

from node_link.messages import SUBPROTOCOL
from orchestrator.api.handover import HANDOVER, Handover
from orchestrator.api.problems import PROBLEM_JSON, problem_of
from orchestrator.api.websocket import Gone, WebSocket
from orchestrator.domain.errors import AppError, DatabaseAway, Invalid, Unavailable
from orchestrator.domain.ids import NodeId
from orchestrator.links.channel import ChannelClosed
from orchestrator.links.serve import serve_link
from orchestrator.links.service import LinkService


@dataclass(frozen=True, slots=True)
class LinkedNode:
    node_id: NodeId
    slug: str


Authenticate = Callable[[str | None], Awaitable[LinkedNode]]
"""Takes the Authorization header; raises Unauthenticated or Forbidden."""


def link_routes(service: LinkService, authenticate: Authenticate) -> Blueprint:
    routes = Blueprint("link", __name__)

    @routes.websocket("/v1/nodes/link")
    async def link() -> Response | None:
        try:
            if service.registry.mode != "serving":
                raise Unavailable("this control-plane takes no links now: try another", retry_after=1)
            node = await authenticate(websocket.headers.get("Authorization"))
            if SUBPROTOCOL not in websocket.requested_subprotocols:
                raise Invalid(f"the subprotocol {SUBPROTOCOL} is required")
        except (AppError, DatabaseAway) as error:
            return _refusal(error)

        async def serve(accepted: WebSocket) -> None:
            await serve_link(LinkChannel(accepted), node.node_id, node.slug, service)

        handover = cast("Handover", websocket.scope["extensions"][HANDOVER])
        await websocket.accept(subprotocol=SUBPROTOCOL)
        handover.to(serve)
        return None

    return routes


def _refusal(error: AppError | DatabaseAway) -> Response:
    problem = problem_of(error)
    state: Mapping[str, object] = websocket.scope.get("state") or {}
    body = problem.body(str(state.get("request_id", "")))
    return Response(body, problem.status, dict(problem.headers), content_type=PROBLEM_JSON)


class LinkChannel:
    """A websocket as the links layer knows it."""

    def __init__(self, accepted: WebSocket) -> None:
        self._websocket = accepted
        self.close = accepted.close

    async def receive(self) -> str | bytes:
        try:
            return await self._websocket.receive()
        except Gone as error:
            raise ChannelClosed(str(error)) from error

    async def send(self, text: str) -> None:
        try:
            await self._websocket.send(text)
        except Gone as error:
            raise ChannelClosed(str(error)) from error
