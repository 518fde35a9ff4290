"""A user gateway with users, on a real port and a real database."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
from quart import Blueprint

from http_client import serving
from orchestrator.api.auth import UserGate
from orchestrator.app.login_limits import LoginLimits
from orchestrator.app.passwords import Passwords
from orchestrator.app.principals import Principals
from orchestrator.app.sessions import Sessions
from orchestrator.app.tokens import Lives, Tokens
from orchestrator.app.users import Change, NewUser, Users
from orchestrator.domain.access import Network
from orchestrator.domain.users import Role, User
from orchestrator.store.db import Database
from orchestrator.user_gateway.app import create_user_gateway
from orchestrator.user_gateway.auth import auth_routes
from orchestrator.user_gateway.users import user_routes

SECRET = "a secret of tests, long enough to be one"
PASSWORD = "correct horse battery"


@dataclass(frozen=True)
class Identity:
    db: Database
    tokens: Tokens
    sessions: Sessions
    users: Users
    gate: UserGate

    async def make_user(self, handle: str, *roles: Role, password: str = PASSWORD) -> User:
        return await self.users.create(NewUser(handle, password, None, frozenset(roles)), Change(None))


def make_identity(
    db: Database, *, per_minute: int = 1000, trusted: Iterable[Network] = (), lives: Lives | None = None
) -> Identity:
    passwords, tokens = Passwords(), Tokens(SECRET, lives=lives)
    sessions = Sessions(db, tokens, passwords, LoginLimits(per_minute), Principals(db))
    return Identity(db, tokens, sessions, Users(db, passwords), UserGate(sessions.authenticate, tuple(trusted)))


@asynccontextmanager
async def gateway(identity: Identity, *more: Blueprint) -> AsyncIterator[httpx.AsyncClient]:
    own = [
        auth_routes(identity.sessions, identity.gate),
        user_routes(identity.users, identity.sessions, identity.gate),
    ]
    async with serving(create_user_gateway([*own, *more])) as port, client_of(port) as client:
        yield client


@asynccontextmanager
async def client_of(port: int) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=50, max_keepalive_connections=50)
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30, limits=limits
    ) as client:
        yield client


async def log_in(client: httpx.AsyncClient, handle: str, password: str = PASSWORD) -> dict[str, Any]:
    answer = await client.post("/v1/auth/login", json={"handle": handle, "password": password})
    assert answer.status_code == 200, answer.text
    tokens: dict[str, Any] = answer.json()
    return tokens


def bearer(tokens: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens['access_token']}"}


async def log_in_as(client: httpx.AsyncClient, handle: str) -> dict[str, str]:
    return bearer(await log_in(client, handle))


QUICK = Lives(access=timedelta(seconds=1), refresh=timedelta(hours=1))
