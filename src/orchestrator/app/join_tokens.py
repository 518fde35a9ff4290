"""Join tokens: how an admin lets a node in without the shared key."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from orchestrator.app.clock import new_id, now
from orchestrator.app.settle import settle
from orchestrator.app.tokens import token_hash
from orchestrator.domain.errors import Invalid, NotFound
from orchestrator.domain.ids import UserId
from orchestrator.domain.nodes import read_slug
from orchestrator.domain.paging import Page, Wanted, cut_page
from orchestrator.domain.registration import JoinToken
from orchestrator.store import join_tokens
from orchestrator.store.db import Connection, Database

LONGEST_SECONDS = 30 * 86400
MOST_USES = 10_000
MOST_LABELS = 32
NO_TOKEN = "Node token not found"


@dataclass(frozen=True, slots=True)
class NewJoinToken:
    slug: str | None = None
    labels: Mapping[str, str] | None = None
    expires_in: int = 3600
    uses: int = 1


class JoinTokens:
    def __init__(self, db: Database) -> None:
        self._db = db

    async def create(self, wanted: NewJoinToken, by: UserId) -> tuple[JoinToken, str]:
        """The token and its secret, which is nowhere else. Raises Invalid."""
        _check(wanted)
        secret = "cnj_" + secrets.token_urlsafe(32)
        at = now()
        expires = at + timedelta(seconds=wanted.expires_in)
        token = JoinToken(new_id(), wanted.slug or None, wanted.labels, wanted.uses, expires, at)

        async def work(conn: Connection) -> JoinToken:
            await join_tokens.insert_token(conn, token, token_hash(secret), by)
            return token

        async def look(conn: Connection) -> JoinToken | None:
            return await join_tokens.get_token(conn, token.id)

        return await settle(self._db, work, look), secret

    async def get(self, token: UUID) -> JoinToken:
        async def find(conn: Connection) -> JoinToken | None:
            return await join_tokens.get_token(conn, token)

        found = await self._db.read(find)
        if found is None:
            raise NotFound(NO_TOKEN)
        return found

    async def page(self, wanted: Wanted) -> Page[JoinToken]:
        async def find(conn: Connection) -> list[JoinToken]:
            return await join_tokens.list_tokens(conn, wanted.after, wanted.limit + 1)

        found = await self._db.read(find)
        return cut_page(found, [str(token.id) for token in found], wanted.limit)

    async def delete(self, token: UUID) -> None:
        """Nodes that it let in stay. Raises NotFound."""

        async def work(conn: Connection) -> bool:
            return await join_tokens.delete_token(conn, token)

        if not await self._db.transact(work):
            raise NotFound(NO_TOKEN)


def _check(wanted: NewJoinToken) -> None:
    if wanted.slug:
        read_slug(wanted.slug)
    if not 1 <= wanted.expires_in <= LONGEST_SECONDS:
        raise Invalid(f"expires_in: 1 to {LONGEST_SECONDS} seconds", field="expires_in")
    if not 1 <= wanted.uses <= MOST_USES:
        raise Invalid(f"uses: 1 to {MOST_USES}", field="uses")
    if len(wanted.labels or {}) > MOST_LABELS:
        raise Invalid(f"labels: at most {MOST_LABELS}", field="labels")
