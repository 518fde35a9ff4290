"""Join tokens, for admins."""

from typing import Any

from quart import Blueprint, Response, request

from orchestrator.api.auth import UserGate, read_id
from orchestrator.api.http import Body, no_content, read_body, reply
from orchestrator.app.join_tokens import NO_TOKEN, JoinTokens, NewJoinToken
from orchestrator.domain.paging import Wanted
from orchestrator.domain.registration import JoinToken
from orchestrator.domain.times import rfc3339


class CreateToken(Body):
    slug: str | None = None
    labels: dict[str, str] | None = None
    expires_in: int = 3600
    uses: int = 1


def token_view(token: JoinToken) -> dict[str, Any]:
    """Never with the secret, of which only a hash is kept."""
    named = {"slug": token.slug, "labels": None if token.labels is None else dict(token.labels)}
    return {
        "id": str(token.id),
        **{name: value for name, value in named.items() if value is not None},
        "uses_left": token.uses_left,
        "expires_at": rfc3339(token.expires_at),
        "created_at": rfc3339(token.created_at),
    }


def node_token_routes(tokens: JoinTokens, gate: UserGate) -> Blueprint:
    routes = Blueprint("node_tokens", __name__, url_prefix="/v1/node-tokens")

    @routes.post("")
    async def create() -> Response:
        who = await gate.require_admin()
        wanted = await read_body(CreateToken, optional=True)
        new = NewJoinToken(wanted.slug, wanted.labels, wanted.expires_in, wanted.uses)
        token, secret = await tokens.create(new, who.user_id)
        body = {"id": str(token.id), "token": secret, "expires_at": rfc3339(token.expires_at)}
        return reply(body, 201, Cache_Control="no-store")

    @routes.get("")
    async def list_all() -> Response:
        await gate.require_admin()
        page = await tokens.page(Wanted.of(request.args.get("limit"), request.args.get("cursor")))
        further = {} if page.next_cursor is None else {"next_cursor": page.next_cursor}
        return reply({"tokens": [token_view(token) for token in page.items], **further})

    @routes.get("/<token>")
    async def get(token: str) -> Response:
        await gate.require_admin()
        return reply(token_view(await tokens.get(read_id(token, NO_TOKEN))))

    @routes.delete("/<token>")
    async def delete(token: str) -> Response:
        await gate.require_admin()
        await tokens.delete(read_id(token, NO_TOKEN))
        return no_content()

    return routes
