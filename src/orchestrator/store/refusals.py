"""What a node has said that it will not run, so that a claim leaves out whole groups."""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.domain.ids import NodeId
from orchestrator.store.db import Connection

NOTE = """
    INSERT INTO node_refusals (node_id, requirement_id, reason, detail)
    SELECT * FROM unnest($1::uuid[], $2::int[], $3::text[], $4::text[])
        ON CONFLICT (node_id, requirement_id) DO UPDATE SET reason = excluded.reason, detail = excluded.detail
"""
READ = "SELECT node_id, requirement_id FROM node_refusals WHERE node_id = ANY($1::uuid[])"
CLEAR = "DELETE FROM node_refusals WHERE node_id = $1"


@dataclass(frozen=True, slots=True)
class Refusal:
    node_id: NodeId
    requirement_id: int
    reason: str
    detail: str | None


async def note_refusals(conn: Connection, refusals: Sequence[Refusal]) -> None:
    once = {(r.node_id, r.requirement_id): r for r in refusals}
    kept = [once[key] for key in sorted(once)]
    await conn.execute(
        NOTE,
        [r.node_id for r in kept],
        [r.requirement_id for r in kept],
        [r.reason for r in kept],
        [r.detail for r in kept],
    )


async def read_refusals(conn: Connection, nodes: Sequence[NodeId]) -> dict[NodeId, frozenset[int]]:
    refused: dict[NodeId, set[int]] = {}
    for row in await conn.fetch(READ, list(nodes)):
        refused.setdefault(row["node_id"], set()).add(row["requirement_id"])
    return {node: frozenset(ids) for node, ids in refused.items()}


async def clear_refusals(conn: Connection, node: NodeId) -> None:
    """After its capability or its configuration changed."""
    await conn.execute(CLEAR, node)
