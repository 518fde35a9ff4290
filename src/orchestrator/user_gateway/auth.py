"""Logging in, refreshing, logging out."""

from pydantic import Field
from quart import Blueprint, Response

from orchestrator.api.auth import UserGate
from orchestrator.api.http import Body, no_content, read_body, reply
from orchestrator.app.sessions import Sessions
from orchestrator.domain.sessions import TokenSet

CREDENTIALS_MISSING = "Handle and password are required"
REFRESH_MISSING = "Refresh token is required"


class Login(Body):
    handle: str = Field(min_length=1)
    password: str = Field(min_length=1)


class Refresh(Body):
    refresh_token: str = Field(min_length=1)


class Logout(Body):
    refresh_token: str | None = None


def auth_routes(sessions: Sessions, gate: UserGate) -> Blueprint:
    routes = Blueprint("auth", __name__, url_prefix="/v1/auth")

    @routes.post("/login")
    async def login() -> Response:
        wanted = await read_body(Login, missing=CREDENTIALS_MISSING)
        return _reply(await sessions.login(wanted.handle, wanted.password, gate.caller()))

    @routes.post("/refresh")
    async def refresh() -> Response:
        wanted = await read_body(Refresh, missing=REFRESH_MISSING)
        return _reply(await sessions.refresh(wanted.refresh_token, gate.caller()))

    @routes.post("/logout")
    async def logout() -> Response:
        who = await gate.authenticated()
        wanted = await read_body(Logout, optional=True)
        await sessions.logout(who, wanted.refresh_token, gate.caller())
        return no_content()

    return routes


def _reply(tokens: TokenSet) -> Response:
    body = {
        "access_token": tokens.access_token,
        "refresh_token": tokens.refresh_token,
        "token_type": "Bearer",
        "expires_in": tokens.expires_in,
    }
    return reply(body, Cache_Control="no-store")
