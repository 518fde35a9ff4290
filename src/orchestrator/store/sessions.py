"""Refresh sessions: one row a login, whose id the tokens carry as `sid`."""

from collections.abc import Collection, Sequence
from datetime import datetime

from orchestrator.domain.access import Principal
from orchestrator.domain.ids import SessionId, UserId
from orchestrator.domain.sessions import Session
from orchestrator.store.db import Connection
from orchestrator.store.users import read_stored_roles

INSERT = """
    INSERT INTO refresh_sessions (id, user_id, refresh_token_hash, expires_at, last_used_at) VALUES ($1, $2, $3, $4, $5)
"""
LOCK = """
    SELECT s.id, s.user_id, u.handle, u.is_active AS user_is_active, s.refresh_token_hash, s.rotated_at, s.is_active,
           s.expires_at
      FROM refresh_sessions s JOIN users u ON u.id = s.user_id
     WHERE s.id = $1 AND s.user_id = $2 FOR NO KEY UPDATE OF s
"""
ROTATE = """
    UPDATE refresh_sessions
       SET refresh_token_hash = $2, rotated_at = $3, last_used_at = $3, expires_at = $4, updated_at = $3
     WHERE id = $1
"""
HAS_HASH = "SELECT true FROM refresh_sessions WHERE id = $1 AND refresh_token_hash = $2"
END = """
    UPDATE refresh_sessions SET is_active = false, ended_reason = $3, updated_at = now()
     WHERE user_id = $1 AND id = ANY($2::uuid[]) AND is_active RETURNING id
"""
END_ALL = """
    UPDATE refresh_sessions SET is_active = false, ended_reason = $2, updated_at = now()
     WHERE user_id = $1 AND is_active RETURNING id
"""
# One statement, since it is asked at every request; for all requests that ask at the same time.
PRINCIPALS = """
    SELECT s.id AS session_id, u.id AS user_id, u.handle, ARRAY(
               SELECT r.name FROM role_bindings b JOIN roles r ON r.id = b.role_id
                WHERE b.subject_type = 'user' AND b.subject_id = u.id AND b.scope_type = 'system' AND b.is_active
           ) AS roles
      FROM unnest($1::uuid[], $2::uuid[]) AS x (session_id, user_id)
      JOIN refresh_sessions s ON s.id = x.session_id AND s.user_id = x.user_id
      JOIN users u ON u.id = s.user_id
     WHERE s.is_active AND u.is_active AND s.expires_at > $3
"""


async def insert_session(
    conn: Connection, session: SessionId, user: UserId, token_hash: bytes, expires_at: datetime, now: datetime
) -> None:
    await conn.execute(INSERT, session, user, token_hash, expires_at, now)


async def lock_session(conn: Connection, session: SessionId, user: UserId) -> Session | None:
    row = await conn.fetchrow(LOCK, session, user)
    if row is None:
        return None
    return Session(
        id=row["id"],
        user_id=row["user_id"],
        handle=row["handle"],
        user_is_active=row["user_is_active"],
        token_hash=bytes(row["refresh_token_hash"]),
        rotated_at=row["rotated_at"],
        is_active=row["is_active"],
        expires_at=row["expires_at"],
    )


async def rotate_session(
    conn: Connection, session: SessionId, token_hash: bytes, now: datetime, expires_at: datetime
) -> None:
    await conn.execute(ROTATE, session, token_hash, now, expires_at)


async def has_token(conn: Connection, session: SessionId, token_hash: bytes) -> bool:
    return bool(await conn.fetchval(HAS_HASH, session, token_hash))


async def end_sessions(conn: Connection, user: UserId, sessions: Sequence[SessionId], reason: str) -> int:
    """How many of these were the user's and still active."""
    return len(await conn.fetch(END, user, list(sessions), reason))


async def end_all_sessions(conn: Connection, user: UserId, reason: str) -> int:
    return len(await conn.fetch(END_ALL, user, reason))


async def find_principals(
    conn: Connection, wanted: Collection[tuple[SessionId, UserId]], now: datetime
) -> dict[tuple[SessionId, UserId], Principal]:
    """Without those of which the session or its user may do nothing any more."""
    rows = await conn.fetch(PRINCIPALS, [session for session, _ in wanted], [user for _, user in wanted], now)
    return {
        (row["session_id"], row["user_id"]): Principal(
            row["user_id"], row["handle"], row["session_id"], read_stored_roles(row["roles"])
        )
        for row in rows
    }
