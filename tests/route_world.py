"""Both HTTP services as the server composes them, in this process; and one caller of each class."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import uuid4

import httpx
import trio

from identity import client_of
from nodes_parts import PSK, new_key, node_headers, register
from orchestrator.app.clock import new_id, now
from orchestrator.config import Settings, load_settings
from orchestrator.domain.ids import SessionId, UserId
from orchestrator.server.common import tokens_of
from orchestrator.server.control_plane import serve_control_plane
from orchestrator.server.user_gateway import serve_user_gateway
from orchestrator.store.db import Database
from plane import Plane

Headers = dict[str, str]
SECRET = "jwt-of-tests-0123456789-0123456789"


def route_settings() -> Settings:
    return load_settings(
        jwt_secret=SECRET,
        node_registration_psk=PSK,
        user_gateway_listen_addr="127.0.0.1:0",
        control_plane_listen_addr="127.0.0.1:0",
        ready_requires="database",
        rate_limit_per_minute=10_000,
    )


@dataclass
class RouteWorld:
    settings: Settings
    rows: Plane
    gateway: httpx.AsyncClient
    plane: httpx.AsyncClient
    callers: dict[str, Headers]
    """By class: nobody, owner, other, admin, node; and tokens of a wrong kind."""
    node_key: str
    refresh_token: str
    login: dict[str, str] = field(default_factory=dict)

    async def user(self, *roles: str, password: str | None = None) -> tuple[UserId, Headers, str]:
        """Its id, an access token's header, a refresh token."""
        handle = f"u{uuid4().hex[:12]}"
        user, session = await self.rows.user(handle), SessionId(new_id())
        tokens = tokens_of(self.settings)
        refresh = tokens.refresh(user, session, now())
        await self.rows.sql(
            "INSERT INTO refresh_sessions (id, user_id, refresh_token_hash, expires_at) "
            "VALUES ($1, $2, sha256(convert_to($3, 'UTF8')), now() + interval '1 day')",
            session, user, refresh.text,
        )  # fmt: skip
        for role in roles:
            await self.rows.sql(
                "INSERT INTO role_bindings (id, subject_type, subject_id, role_id, scope_type) "
                "SELECT gen_random_uuid(), 'user', $1, id, 'system' FROM roles WHERE name = $2",
                user, role,
            )  # fmt: skip
        if password is not None:
            answer = await self.gateway.post(
                f"/v1/users/{user}/reset_password", json={"password": password}, headers=self.callers["admin"]
            )
            assert answer.status_code == 204, answer.text
        return user, {"Authorization": f"Bearer {tokens.access(user, handle, session, now()).text}"}, refresh.text

    async def task(self, **fields: Any) -> dict[str, Any]:
        """A new one of the owner's."""
        body = {"prompt": "echo hi", "input_mode": "script", **fields}
        answer = await self.gateway.post("/v1/tasks", json=body, headers=self.callers["owner"])
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def node(self) -> str:
        slug = f"n{uuid4().hex[:12]}"
        assert (await register(self.plane, slug)).status_code == 201
        return slug


@asynccontextmanager
async def open_routes(db: Database, dsn: str) -> AsyncIterator[RouteWorld]:
    settings, stopping = route_settings(), trio.Event()
    async with trio.open_nursery() as nursery:
        ports = []
        for serve in (serve_user_gateway, serve_control_plane):
            [url] = await nursery.start(partial(serve, settings, db, dsn, stopping=stopping))
            ports.append(int(url.rsplit(":", 1)[1]))
        async with client_of(ports[0]) as gateway, client_of(ports[1]) as plane:
            world = RouteWorld(settings, Plane(db), gateway, plane, {"nobody": {}}, new_key(), "")
            _, world.callers["owner"], world.refresh_token = await world.user("member")
            _, world.callers["other"], _ = await world.user("member")
            _, world.callers["admin"], _ = await world.user("admin")
            world.callers["node"] = node_headers(await register(plane, "n1", node_key=world.node_key))
            world.callers["refresh token"] = {"Authorization": f"Bearer {world.refresh_token}"}
            world.callers["garbage"] = {"Authorization": "Bearer garbage"}
            yield world
        stopping.set()
