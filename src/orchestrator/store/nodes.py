"""Rows of `nodes` and `node_configs`. The links and leases are in `links.py`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from orchestrator.domain.ids import NodeId
from orchestrator.domain.nodes import AckStatus, Node
from orchestrator.store.db import Connection, Row

# A lock that leaves foreign keys alone: an attempt may be assigned to the node meanwhile.
LOCK_BY_SLUG = "SELECT * FROM nodes WHERE slug = $1 FOR NO KEY UPDATE"
LOCK = "SELECT * FROM nodes WHERE id = $1 FOR NO KEY UPDATE"
INSERT = """
    INSERT INTO nodes (id, slug, node_key_hash, tokens_valid_from) VALUES ($1, $2, $3, $4)
    ON CONFLICT ON CONSTRAINT nodes_slug_key DO NOTHING RETURNING *
"""
FIND = """
    SELECT id, slug, enabled, node_key_hash, tokens_valid_from, capability, capability_hash, config_version
      FROM nodes WHERE slug = $1
"""
GET = """
    SELECT id, slug, enabled, node_key_hash, tokens_valid_from, capability, capability_hash, config_version
      FROM nodes WHERE id = $1
"""
SET_KEY = "UPDATE nodes SET node_key_hash = $2, tokens_valid_from = $3, updated_at = now() WHERE id = $1"
SET_PLACEMENT = "UPDATE nodes SET placement_labels = $2, updated_at = now() WHERE id = $1"
SET_CAPABILITY = """
    UPDATE nodes SET capability = $2, capability_hash = $3, display_name = $4, last_capability_at = $5, updated_at = $5
     WHERE id = $1
"""
INSERT_CONFIG = "INSERT INTO node_configs (node_id, config_version, payload, issued_at) VALUES ($1, $2, $3, $4)"
SET_CONFIG = "UPDATE nodes SET config_version = $2, updated_at = now() WHERE id = $1"
GET_CONFIG = "SELECT payload FROM node_configs WHERE node_id = $1 AND config_version = $2"
ACK = """
    UPDATE node_configs SET acked_at = $3, status = $4, error = $5 WHERE node_id = $1 AND config_version = $2
    RETURNING config_version
"""
ACK_CURRENT = """
    UPDATE nodes
       SET acked_config_version = $2, config_ack_at = $3, config_ack_status = $4, config_ack_error = $5, updated_at = $3
     WHERE id = $1 AND config_version = $2 RETURNING id
"""
VIEW = """
    SELECT n.id, n.slug, n.display_name, n.enabled, n.drain_requested_at, n.config_version, n.acked_config_version,
           n.config_ack_status, n.last_seen_at, n.agent_version, n.slots, n.capability, n.placement_labels,
           l.link_id IS NOT NULL AS linked, coalesce(l.lease = 'held', false) AS leased,
           (SELECT count(*) FROM job_attempts a WHERE a.node_id = n.id AND a.stopped_at IS NULL) AS occupied
      FROM nodes n LEFT JOIN node_links l ON l.node_id = n.id
"""
VIEW_ONE = VIEW + "WHERE n.slug = $1"
VIEW_PAGE = VIEW + 'WHERE n.slug COLLATE "C" > $1 ORDER BY n.slug COLLATE "C" LIMIT $2'
VIEW_LINKED = VIEW + "WHERE l.link_id IS NOT NULL AND n.enabled AND n.drain_requested_at IS NULL"
COUNT = "SELECT count(*) FROM nodes"
OFFERS_SANDBOX = """
    SELECT EXISTS (SELECT 1 FROM nodes WHERE enabled AND capability -> 'runtimes' @> ANY (ARRAY[
        '[{"name": "podman"}]', '[{"name": "docker"}]', '[{"name": "bubblewrap"}]']::jsonb[]))
"""
DRAIN = "UPDATE nodes SET drain_requested_at = $2, updated_at = $2 WHERE id = $1 AND drain_requested_at IS NULL"
ENABLE = """
    UPDATE nodes SET enabled = true, drain_requested_at = NULL, updated_at = now()
     WHERE id = $1 AND (NOT enabled OR drain_requested_at IS NOT NULL)
"""
DISABLE = """
    UPDATE nodes SET enabled = false, tokens_valid_from = $2, updated_at = now() WHERE id = $1 AND enabled
"""


@dataclass(frozen=True, slots=True)
class NodeRow:
    id: NodeId
    slug: str
    enabled: bool
    key_hash: bytes | None = field(repr=False)
    tokens_valid_from: datetime
    capability: Mapping[str, Any] = field(repr=False)
    capability_hash: str
    config_version: str | None

    @classmethod
    def of(cls, row: Row | None) -> "NodeRow | None":
        if row is None:
            return None
        key = row["node_key_hash"]
        return cls(
            id=row["id"],
            slug=row["slug"],
            enabled=row["enabled"],
            key_hash=None if key is None else bytes(key),
            tokens_valid_from=row["tokens_valid_from"],
            capability=row["capability"],
            capability_hash=row["capability_hash"],
            config_version=row["config_version"],
        )


async def lock_by_slug(conn: Connection, slug: str) -> NodeRow | None:
    return NodeRow.of(await conn.fetchrow(LOCK_BY_SLUG, slug))


async def lock_node(conn: Connection, node: NodeId) -> NodeRow | None:
    return NodeRow.of(await conn.fetchrow(LOCK, node))


async def find_node(conn: Connection, slug: str) -> NodeRow | None:
    return NodeRow.of(await conn.fetchrow(FIND, slug))


async def get_node(conn: Connection, node: NodeId) -> NodeRow | None:
    return NodeRow.of(await conn.fetchrow(GET, node))


async def insert_node(
    conn: Connection, node: NodeId, slug: str, key_hash: bytes | None, valid_from: datetime
) -> NodeRow | None:
    """None when somebody else has the slug, perhaps since a moment ago."""
    return NodeRow.of(await conn.fetchrow(INSERT, node, slug, key_hash, valid_from))


async def set_key(conn: Connection, node: NodeId, key_hash: bytes, tokens_valid_from: datetime) -> None:
    await conn.execute(SET_KEY, node, key_hash, tokens_valid_from)


async def set_placement(conn: Connection, node: NodeId, labels: Mapping[str, str] | None) -> None:
    await conn.execute(SET_PLACEMENT, node, None if labels is None else dict(labels))


async def set_capability(
    conn: Connection, node: NodeId, capability: Mapping[str, Any], hashed: str, name: str | None, at: datetime
) -> None:
    await conn.execute(SET_CAPABILITY, node, dict(capability), hashed, name, at)


async def insert_config(conn: Connection, node: NodeId, config: Mapping[str, Any], at: datetime) -> None:
    """It is the node's current one from then on, and not acknowledged."""
    await conn.execute(INSERT_CONFIG, node, config["config_version"], dict(config), at)
    await conn.execute(SET_CONFIG, node, config["config_version"])


async def get_config(conn: Connection, node: NodeId, version: str | None) -> dict[str, Any] | None:
    found: dict[str, Any] | None = await conn.fetchval(GET_CONFIG, node, version)
    return found


async def record_ack(
    conn: Connection, node: NodeId, version: str, at: datetime, status: AckStatus, error: str | None
) -> tuple[bool, bool]:
    """Whether this version was ever issued to the node, and whether it is the current one: only that ack counts."""
    issued = await conn.fetchval(ACK, node, version, at, status.value, error) is not None
    return issued, issued and await conn.fetchval(ACK_CURRENT, node, version, at, status.value, error) is not None


async def view_node(conn: Connection, slug: str) -> Node | None:
    row = await conn.fetchrow(VIEW_ONE, slug)
    return None if row is None else _node(row)


async def view_page(conn: Connection, after: str, most: int) -> list[Node]:
    return [_node(row) for row in await conn.fetch(VIEW_PAGE, after, most)]


async def view_linked(conn: Connection) -> list[Node]:
    """Those that are linked and allowed to work."""
    return [_node(row) for row in await conn.fetch(VIEW_LINKED)]


async def count_nodes(conn: Connection) -> int:
    return int(await conn.fetchval(COUNT))


async def drain_node(conn: Connection, node: NodeId, at: datetime) -> None:
    await conn.execute(DRAIN, node, at)


async def enable_node(conn: Connection, node: NodeId) -> None:
    """Ends a drain too."""
    await conn.execute(ENABLE, node)


async def disable_node(conn: Connection, node: NodeId, tokens_valid_from: datetime) -> None:
    await conn.execute(DISABLE, node, tokens_valid_from)


async def offers_sandbox(conn: Connection) -> bool:
    """Whether any enabled node runs jobs with isolation."""
    return bool(await conn.fetchval(OFFERS_SANDBOX))


def _node(row: Row) -> Node:
    ack = row["config_ack_status"]
    return Node(
        id=row["id"],
        slug=row["slug"],
        display_name=row["display_name"],
        enabled=row["enabled"],
        drain_requested_at=row["drain_requested_at"],
        config_version=row["config_version"],
        acked_config_version=row["acked_config_version"],
        ack_status=None if ack is None else AckStatus(ack),
        last_seen_at=row["last_seen_at"],
        agent_version=row["agent_version"],
        slots=row["slots"],
        capability=row["capability"],
        placement_labels=row["placement_labels"],
        linked=row["linked"],
        leased=row["leased"],
        occupied=row["occupied"],
    )
