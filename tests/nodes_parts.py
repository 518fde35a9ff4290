"""A control-plane's REST side on a real port, and nodes that speak to it."""

import base64
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx

from http_client import serving
from identity import SECRET, client_of
from orchestrator.api.auth import NodeGate
from orchestrator.app.join_tokens import JoinTokens
from orchestrator.app.node_configs import NodeConfigs
from orchestrator.app.nodes import Nodes
from orchestrator.app.registration import Registration
from orchestrator.app.tokens import Tokens
from orchestrator.control_plane.app import create_control_plane
from orchestrator.control_plane.nodes import node_routes
from orchestrator.domain.node_config import ConfigRules
from orchestrator.store.db import Connection, Database

PSK = "a shared key of tests, long enough to be one"


@dataclass(frozen=True)
class Plane:
    db: Database
    tokens: Tokens
    configs: NodeConfigs
    registration: Registration
    nodes: Nodes
    join_tokens: JoinTokens


def make_plane(db: Database, rules: ConfigRules | None = None, *, trust_psk: bool = False) -> Plane:
    tokens, configs = Tokens(SECRET), NodeConfigs(db, rules or ConfigRules())
    registration = Registration(db, tokens, configs, PSK, trust_psk=trust_psk)
    return Plane(db, tokens, configs, registration, Nodes(db), JoinTokens(db))


@asynccontextmanager
async def control_plane(plane: Plane) -> AsyncIterator[httpx.AsyncClient]:
    routes = node_routes(plane.registration, plane.configs, NodeGate(plane.registration.authenticate))
    async with serving(create_control_plane([routes])) as port, client_of(port) as client:
        yield client


def new_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("=")


def report(slug: str = "n1", **more: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "reported_at": "2030-01-01T00:00:00Z",
        "node": {"node_slug": slug, "name": "Node One", "labels": {"room": "1"}},
        "platform": {"os": "linux", "arch": "x86_64"},
        "compute": {"cpu_cores": 2, "ram_mb": 2048},
        "sandbox": {"supported": True},
        "runtimes": [{"name": "bubblewrap", "limits": True, "images": False}],
        **more,
    }


async def register(client: httpx.AsyncClient, slug: str = "n1", **body: Any) -> httpx.Response:
    secret = {} if "psk" in body or "join_token" in body else {"psk": PSK}
    return await client.post("/v1/nodes/register", json={"capability": report(slug), **secret, **body})


def node_headers(answer: httpx.Response) -> dict[str, str]:
    assert answer.status_code in (200, 201), answer.text
    body = answer.json()
    return {"Authorization": f"Bearer {body.get('node_jwt') or body['auth']['node_jwt']}"}


async def acknowledge(
    client: httpx.AsyncClient, node: dict[str, str], version: str, status: str = "applied", slug: str = "n1"
) -> httpx.Response:
    body = {
        "version": 1,
        "node_slug": slug,
        "config_version": version,
        "ack_at": "2030-01-01T00:00:00Z",
        "status": status,
    }
    return await client.post("/v1/nodes/config", headers=node, json=body)


async def sql(db: Database, query: str, *args: Any) -> list[Any]:
    async def work(conn: Connection) -> list[Any]:
        return [tuple(row.values()) for row in await conn.fetch(query, *args)]

    return await db.transact(work)


async def make_linked(db: Database, slug: str, slots: int = 4) -> None:
    """As a committed hello leaves it, with its configuration acknowledged."""
    await sql(
        db,
        """INSERT INTO node_links (node_id, link_id, lease, spool_id, renewals)
           SELECT id, gen_random_uuid(), 'held', 'spool', 1 FROM nodes WHERE slug = $1""",
        slug,
    )
    await sql(
        db,
        """UPDATE nodes SET slots = $2, agent_version = '1.0', last_seen_at = now(),
                  acked_config_version = config_version, config_ack_status = 'applied' WHERE slug = $1""",
        slug,
        slots,
    )


async def add_attempt(db: Database, slug: str, user: UUID) -> None:
    """One job, assigned to the node and running."""
    rows = await sql(db, "INSERT INTO requirements (body) VALUES (gen_random_uuid()::text) RETURNING id")
    await sql(
        db,
        """WITH t AS (
               INSERT INTO tasks (id, created_by, project_id, name, input_mode, prompt)
               SELECT gen_random_uuid(), $1, p.id, gen_random_uuid()::text, 'script', 'x' FROM projects p
                WHERE p.default_of = $1 RETURNING id
           ), j AS (
               INSERT INTO jobs (id, task_id, owner, requirement_id, status, spec, timeout_seconds, max_attempts,
                                 attempt, assignment_id, node_id)
               SELECT gen_random_uuid(), t.id, $1, $3, 'running', '{}', 1, 1, 1, gen_random_uuid(), n.id
                 FROM t, nodes n WHERE n.slug = $2 RETURNING id, assignment_id, node_id
           )
           INSERT INTO job_attempts (job_id, attempt, assignment_id, node_id, link_id, spool_id, timeout_seconds)
           SELECT id, 1, assignment_id, node_id, gen_random_uuid(), 'spool', 1 FROM j""",
        user,
        slug,
        rows[0][0],
    )
