"""Whose node it is: the narrow table `node_links`, and what a hello needs to know."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from orchestrator.domain.dispatch import Held
from orchestrator.domain.ids import AssignmentId, LinkId, NodeId
from orchestrator.store.db import Connection, Row

ENSURE = "INSERT INTO node_links (node_id) VALUES ($1) ON CONFLICT DO NOTHING"
LOCK = "SELECT * FROM node_links WHERE node_id = $1 FOR UPDATE"
TAKE = """
    UPDATE node_links
       SET link_id = $2, lease = 'held', spool_id = $3, agent_start_id = $4, control_plane = $5, dial = $6,
           renewals = renewals + 1, since = now()
     WHERE node_id = $1
"""
# FOR KEY SHARE waits for a hello or a reaper (they change link_id, a key), not for a heartbeat (which does not).
STILL_MINE = """
    SELECT node_id, link_id FROM node_links WHERE node_id = ANY($1::uuid[]) ORDER BY node_id FOR KEY SHARE
"""
CLOSE = "UPDATE node_links SET link_id = NULL WHERE node_id = $1 AND link_id = $2"
RENEW = """
    WITH mine AS (
        SELECT l.node_id FROM node_links l
          JOIN unnest($1::uuid[], $2::uuid[]) AS n (node_id, link_id) ON n.node_id = l.node_id AND n.link_id = l.link_id
      ORDER BY l.node_id FOR NO KEY UPDATE OF l
    ), renewed AS (
        UPDATE node_links l SET renewals = renewals + 1 FROM mine WHERE l.node_id = mine.node_id RETURNING l.node_id
    )
    UPDATE nodes SET last_seen_at = now() WHERE id = ANY(ARRAY(SELECT node_id FROM renewed)) RETURNING id AS node_id
"""
COUNTERS = "SELECT node_id, renewals FROM node_links WHERE lease = 'held'"
EXPIRE = """
    UPDATE node_links SET link_id = NULL, lease = 'expired'
     WHERE node_id = $1 AND renewals = $2 AND lease = 'held' RETURNING node_id
"""
RELEASE = "UPDATE node_links SET link_id = NULL, lease = 'free' WHERE node_id = $1 AND lease = 'held' RETURNING node_id"
NOTE_HELLO = """
    UPDATE nodes SET agent_version = $2, slots = $3, last_seen_at = now(), updated_at = now() WHERE id = $1
"""
SETTINGS = """
    SELECT n.id, n.enabled, n.drain_requested_at, n.config_version, n.acked_config_version, n.config_ack_status,
           n.capability, n.placement_labels, n.tokens_valid_from, c.payload
      FROM nodes n LEFT JOIN node_configs c ON c.node_id = n.id AND c.config_version = n.config_version
     WHERE n.id = ANY($1::uuid[])
"""
SPECS = """
    SELECT a.job_id, a.attempt, a.assignment_id, j.task_id, j.spec::text, a.timeout_seconds, a.accepted_at, a.started_at
      FROM job_attempts a JOIN jobs j ON j.id = a.job_id WHERE a.assignment_id = ANY($1::uuid[])
"""
PROBE = "SELECT pg_current_xact_id()"
OCCUPIED = """
    SELECT node_id, job_id, attempt, assignment_id, timeout_seconds, accepted_at, started_at, ended_at, stop_reason,
           stop_requested_at
      FROM job_attempts WHERE node_id = ANY($1::uuid[]) AND stopped_at IS NULL
"""


async def lock_link(conn: Connection, node: NodeId) -> Row:
    """The node's row, made if need be, locked against every other write for this node."""
    await conn.execute(ENSURE, node)
    row = await conn.fetchrow(LOCK, node)
    assert row is not None
    return row


async def take_link(
    conn: Connection, node: NodeId, link: LinkId, spool_id: str, agent_start_id: str, control_plane: UUID, dial: int
) -> None:
    await conn.execute(TAKE, node, link, spool_id, agent_start_id, control_plane, dial)


async def hold_mine(conn: Connection, links: Mapping[NodeId, LinkId]) -> dict[NodeId, LinkId | None]:
    """Locks these nodes' rows for the rest of the transaction; answers those that are NOT mine, with whose they are."""
    rows = await conn.fetch(STILL_MINE, sorted(links)) if links else []
    found = {row["node_id"]: row["link_id"] for row in rows}
    return {node: found.get(node) for node, link in links.items() if found.get(node) != link}


async def note_hello(conn: Connection, node: NodeId, agent_version: str, slots: int) -> None:
    await conn.execute(NOTE_HELLO, node, agent_version, slots)


async def read_settings(conn: Connection, nodes: Sequence[NodeId]) -> list[Row]:
    return await conn.fetch(SETTINGS, list(nodes))


async def close_link(conn: Connection, node: NodeId, link: LinkId) -> None:
    await conn.execute(CLOSE, node, link)


async def renew(conn: Connection, links: Sequence[tuple[NodeId, LinkId]]) -> set[NodeId]:
    """One heartbeat for each; answers the nodes whose link is still that one."""
    rows = await conn.fetch(RENEW, [node for node, _ in links], [link for _, link in links])
    return {row["node_id"] for row in rows}


async def read_counters(conn: Connection) -> dict[NodeId, int]:
    return {row["node_id"]: row["renewals"] for row in await conn.fetch(COUNTERS)}


async def expire_lease(conn: Connection, node: NodeId, renewals: int) -> bool:
    """False when a heartbeat or a hello was committed meanwhile."""
    return await conn.fetchval(EXPIRE, node, renewals) is not None


async def release_lease(conn: Connection, node: NodeId) -> bool:
    return await conn.fetchval(RELEASE, node) is not None


async def read_held(conn: Connection, assignments: Sequence[AssignmentId]) -> list[Held]:
    return [
        Held(
            row["job_id"],
            row["attempt"],
            row["assignment_id"],
            row["task_id"],
            row["spec"],
            row["timeout_seconds"],
            accepted=row["accepted_at"] is not None,
            started=row["started_at"] is not None,
        )
        for row in await conn.fetch(SPECS, list(assignments))
    ]


async def read_occupied(conn: Connection, nodes: Sequence[NodeId]) -> list[Row]:
    return await conn.fetch(OCCUPIED, list(nodes))


async def probe(conn: Connection) -> None:
    """Leaves nothing but a commit: a transaction with an id of its own is written to the log like any other."""
    await conn.execute(PROBE)
