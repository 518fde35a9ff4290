"""Keys by which a client may repeat a request without making its tasks again."""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.domain.ids import TaskId, UserId
from orchestrator.store.db import Connection

# Waits for whoever stores the same key at this moment; a loser reads the winner's row by a later statement.
ADD_KEYS = """
    INSERT INTO idempotency_keys (user_id, key, body_hash, task_ids)
    SELECT x.user_id, x.key, x.body_hash, x.task_ids::uuid[]
      FROM unnest($1::uuid[], $2::text[], $3::bytea[], $4::text[]) AS x (user_id, key, body_hash, task_ids)
        ON CONFLICT DO NOTHING
"""
READ_KEYS = """
    SELECT k.user_id, k.key, k.body_hash, k.task_ids FROM unnest($1::uuid[], $2::text[]) AS x (user_id, key)
      JOIN idempotency_keys k ON k.user_id = x.user_id AND k.key = x.key
"""


@dataclass(frozen=True, slots=True)
class KeyUse:
    """`key` was used by `user` for a request with this body, which made these tasks."""

    user: UserId
    key: str
    body_hash: bytes
    task_ids: tuple[TaskId, ...]


async def claim_keys(conn: Connection, uses: Sequence[KeyUse]) -> dict[tuple[UserId, str], KeyUse]:
    """The first use of each key: the given one, or one before it."""
    ordered = sorted(uses, key=lambda use: (use.user.bytes, use.key))
    users, keys = [use.user for use in ordered], [use.key for use in ordered]
    hashes, ids = [use.body_hash for use in ordered], [id_array(use.task_ids) for use in ordered]
    await conn.execute(ADD_KEYS, users, keys, hashes, ids)
    rows = await conn.fetch(READ_KEYS, users, keys)
    first = [KeyUse(row["user_id"], row["key"], bytes(row["body_hash"]), tuple(row["task_ids"])) for row in rows]
    return {(use.user, use.key): use for use in first}


def id_array(ids: Sequence[TaskId]) -> str:
    return "{" + ",".join(map(str, ids)) + "}"
