"""Registration, tokens, configuration and reports of nodes. Unknown fields of what nodes send are passed over."""

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from quart import Blueprint, Response, request, websocket

from orchestrator.api.auth import NodeGate, bearer_token
from orchestrator.api.http import no_content, read_body, reply
from orchestrator.app.node_configs import NodeConfigs
from orchestrator.app.registration import WRONG_SLUG, Application, Registered, Registration
from orchestrator.control_plane.link import Authenticate, LinkedNode
from orchestrator.domain.capability import VERSION, check_version
from orchestrator.domain.errors import Invalid
from orchestrator.domain.node_config import endpoints
from orchestrator.domain.nodes import SLUG_MISSING, read_slug
from orchestrator.domain.times import rfc3339

HOST = re.compile(r"[A-Za-z0-9._-]+(:\d+)?|\[[0-9a-fA-F:.]+\](:\d+)?")


class Payload(BaseModel):
    """What nodes send: a newer node may say more than we know."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class Register(Payload):
    psk: str | None = None
    join_token: str | None = None
    node_key: str | None = None
    capability: dict[str, Any] = Field(default_factory=dict)


class TokenRequest(Payload):
    node_slug: str
    node_key: str


class Ack(Payload):
    version: Any = None
    node_slug: str | None = None
    config_version: str = Field(max_length=64)
    ack_at: str | None = None
    status: Literal["applied", "failed", "rolled_back"]
    error: str | None = None


class AnyReport(BaseModel):
    """Kept whole; `read_report` judges it."""

    model_config = ConfigDict(extra="allow", frozen=True)


def node_routes(registration: Registration, configs: NodeConfigs, gate: NodeGate) -> Blueprint:
    routes = Blueprint("nodes", __name__, url_prefix="/v1/nodes")

    @routes.post("/register")
    async def register() -> Response:
        wanted = await read_body(Register)
        application = Application(wanted.capability, wanted.psk, wanted.join_token, wanted.node_key)
        done = await registration.register(application, seen_url(request.scheme, request.host))
        return reply(_bootstrap(done), 201 if done.created else 200, Cache_Control="no-store")

    @routes.post("/token")
    async def token() -> Response:
        wanted = await read_body(TokenRequest)
        signed = await registration.issue_token(read_slug(wanted.node_slug), wanted.node_key)
        body = {"node_jwt": signed.text, "expires_at": rfc3339(signed.expires_at)}
        return reply(body, Cache_Control="no-store")

    @routes.get("/config")
    async def config() -> Response:
        node = await gate.authenticated()
        return reply(await configs.of_node(node.node_id, seen_url(request.scheme, request.host)))

    @routes.post("/config")
    async def acknowledge() -> Response:
        node = await gate.authenticated()
        ack = await read_body(Ack)
        check_version(ack.version)
        if not ack.node_slug:
            raise Invalid(SLUG_MISSING, field="node_slug")
        if ack.node_slug != node.slug:
            raise Invalid(WRONG_SLUG, field="node_slug")
        await configs.record_ack(node.node_id, ack.config_version, ack.status, ack.error)
        return no_content()

    @routes.post("/capability")
    async def capability() -> Response:
        node = await gate.authenticated()
        report = (await read_body(AnyReport)).model_extra or {}
        seen = seen_url(request.scheme, request.host)
        await registration.record_capability(node.node_id, node.slug, report, seen_url=seen)
        return no_content()

    return routes


def link_authenticator(registration: Registration, configs: NodeConfigs) -> Authenticate:
    """For the link's upgrade, within its request: its configuration is brought up to date on the way."""

    async def authenticate(header: str | None) -> LinkedNode:
        row = await registration.authenticate_row(bearer_token([] if header is None else [header]))
        scheme = "https" if websocket.scheme in ("wss", "https") else "http"
        await configs.current(row, seen_url(scheme, websocket.host))
        return LinkedNode(row.id, row.slug)

    return authenticate


def seen_url(scheme: str, host: str) -> str:
    """The address by which this request came, by its own word. Raises Invalid."""
    if not HOST.fullmatch(host or ""):
        raise Invalid("the Host header is no host name: set ORCHESTRATOR_PUBLIC_URL, or dial a proper address")
    return f"{scheme}://{host}"


def _bootstrap(done: Registered) -> dict[str, Any]:
    return {
        "version": VERSION,
        "issued_at": rfc3339(done.issued_at),
        "orchestrator": {"base_url": done.base_url, "endpoints": endpoints(done.base_url)},
        "auth": {"node_jwt": done.token.text, "expires_at": rfc3339(done.token.expires_at)},
    }
