"""Join tokens, by the hash of their secret."""

from collections.abc import Mapping
from uuid import UUID

from orchestrator.domain.ids import UserId
from orchestrator.domain.registration import JoinToken
from orchestrator.store.db import Connection, Row

INSERT = """
    INSERT INTO join_tokens (id, token_hash, slug, labels, uses_left, expires_at, created_by, created_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
"""
LOCK = "SELECT * FROM join_tokens WHERE token_hash = $1 FOR UPDATE"
USE = "UPDATE join_tokens SET uses_left = uses_left - 1 WHERE id = $1"
GET = "SELECT * FROM join_tokens WHERE id = $1"
LIST = "SELECT * FROM join_tokens WHERE id::text > $1 ORDER BY id::text LIMIT $2"
DELETE = "DELETE FROM join_tokens WHERE id = $1 RETURNING id"


async def insert_token(conn: Connection, token: JoinToken, token_hash: bytes, by: UserId) -> None:
    labels: Mapping[str, str] | None = token.labels
    await conn.execute(
        INSERT,
        token.id,
        token_hash,
        token.slug,
        None if labels is None else dict(labels),
        token.uses_left,
        token.expires_at,
        by,
        token.created_at,
    )


async def lock_token(conn: Connection, token_hash: bytes) -> JoinToken | None:
    row = await conn.fetchrow(LOCK, token_hash)
    return None if row is None else _token(row)


async def use_token(conn: Connection, token: UUID) -> None:
    await conn.execute(USE, token)


async def get_token(conn: Connection, token: UUID) -> JoinToken | None:
    row = await conn.fetchrow(GET, token)
    return None if row is None else _token(row)


async def list_tokens(conn: Connection, after: str, most: int) -> list[JoinToken]:
    return [_token(row) for row in await conn.fetch(LIST, after, most)]


async def delete_token(conn: Connection, token: UUID) -> bool:
    return await conn.fetchval(DELETE, token) is not None


def _token(row: Row) -> JoinToken:
    return JoinToken(
        id=row["id"],
        slug=row["slug"],
        labels=row["labels"],
        uses_left=row["uses_left"],
        expires_at=row["expires_at"],
        created_at=row["created_at"],
    )
