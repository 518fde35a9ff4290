"""Nodes come in: with the shared key or a join token the first time, with their own key from then on."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from orchestrator.app.clock import new_id, now
from orchestrator.app.node_configs import NO_NODE, NodeConfigs
from orchestrator.app.settle import settle
from orchestrator.app.tokens import INVALID, Signed, Tokens, token_hash
from orchestrator.domain.access import NodePrincipal
from orchestrator.domain.capability import Report, read_report
from orchestrator.domain.errors import BadData, Forbidden, Invalid, NotFound, Unauthenticated
from orchestrator.domain.ids import NodeId
from orchestrator.domain.registration import (
    DISABLED,
    WRONG_SECRET,
    Admission,
    JoinToken,
    Known,
    Proof,
    hash_key,
    judge,
)
from orchestrator.store import join_tokens, nodes, refusals
from orchestrator.store.bells import ring_nodes
from orchestrator.store.db import Connection, Database
from orchestrator.store.nodes import NodeRow

WRONG_SLUG = "node_slug does not match authenticated node"


@dataclass(frozen=True, slots=True)
class Application:
    """What a node sends to be registered."""

    capability: Mapping[str, Any]
    psk: str | None = field(default=None, repr=False)
    join_token: str | None = field(default=None, repr=False)
    node_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Registered:
    created: bool
    base_url: str
    issued_at: datetime
    token: Signed


class Registration:
    def __init__(
        self, db: Database, tokens: Tokens, configs: NodeConfigs, psk: str | None, *, trust_psk: bool = False
    ) -> None:
        self._db = db
        self._tokens = tokens
        self._configs = configs
        self._psk = psk
        self._trust_psk = trust_psk

    async def register(self, wanted: Application, seen_url: str) -> Registered:
        """Raises Unauthenticated, Invalid, Conflict, Forbidden. What an operator decided about the node stays."""
        psk = self._is_psk(wanted.psk)
        if not psk and (wanted.psk is not None or not wanted.join_token):
            raise Unauthenticated(WRONG_SECRET)
        report = read_report(wanted.capability)
        key_hash = hash_key(wanted.node_key) if wanted.node_key else None
        fresh = NodeId(new_id())

        async def work(conn: Connection) -> tuple[NodeRow, bool]:
            join = await _find_join(conn, wanted.join_token, report.slug)
            proof = Proof(psk, bool(wanted.join_token), join, key_hash)
            node, created = await self._admit(conn, fresh, report.slug, proof)
            await self._take_report(conn, node, report, seen_url)
            await ring_nodes(conn)
            found = await nodes.get_node(conn, node.id)
            assert found is not None
            return found, created

        async def look(conn: Connection) -> tuple[NodeRow, bool] | None:
            found = await nodes.get_node(conn, fresh)
            return None if found is None else (found, True)

        node, created = await settle(self._db, work, look)
        return Registered(created, self._configs.base_url(seen_url), now(), self._sign(node))

    def _is_psk(self, given: str | None) -> bool:
        """In constant time."""
        known = self._psk or ""
        return hmac.compare_digest(token_hash(given or ""), token_hash(known)) and bool(known)

    async def _admit(self, conn: Connection, fresh: NodeId, slug: str, proof: Proof) -> tuple[NodeRow, bool]:
        known = await nodes.lock_by_slug(conn, slug)
        if known is None:
            admission = judge(slug, None, proof, trust_psk=self._trust_psk)
            node = await nodes.insert_node(conn, fresh, slug, proof.key_hash, now().replace(microsecond=0))
            if node is not None:
                await _use(conn, node.id, admission, proof.join)
                return node, True
            known = await nodes.lock_by_slug(conn, slug)
            assert known is not None
        admission = judge(slug, Known(known.key_hash, known.enabled), proof, trust_psk=self._trust_psk)
        await _use(conn, known.id, admission, proof.join)
        if admission.new_key_hash is not None:
            await nodes.set_key(conn, known.id, admission.new_key_hash, next_second())
        return known, False

    async def _take_report(self, conn: Connection, node: NodeRow, report: Report, seen_url: str | None) -> None:
        await nodes.set_capability(conn, node.id, report.raw, report.hash, report.name, now())
        await self._configs.issue_if_changed(conn, node, report.worker_api_url, seen_url)
        if report.hash != node.capability_hash:
            await refusals.clear_refusals(conn, node.id)
            await ring_nodes(conn)

    async def record_capability(
        self, node_id: NodeId, slug: str, raw: Mapping[str, Any], _hash: str = "", *, seen_url: str | None = None
    ) -> None:
        """A report of a node that has shown who it is. Raises Invalid, TooLarge, NotFound."""
        report = read_report(raw)
        if report.slug != slug:
            raise Invalid(WRONG_SLUG, field="node_slug")

        async def work(conn: Connection) -> None:
            node = await nodes.lock_node(conn, node_id)
            if node is None:
                raise NotFound(NO_NODE)
            await self._take_report(conn, node, report, seen_url)

        try:
            await self._db.transact(work)
        except BadData as error:
            raise Invalid("capability: it holds a value that cannot be stored") from error

    async def issue_token(self, slug: str, node_key: str) -> Signed:
        """For a node that has its key. Raises Unauthenticated, Forbidden, Invalid."""
        given = hash_key(node_key)

        async def find(conn: Connection) -> NodeRow | None:
            return await nodes.find_node(conn, slug)

        node = await self._db.read(find)
        if node is None or node.key_hash is None or not hmac.compare_digest(node.key_hash, given):
            raise Unauthenticated("Invalid node key")
        if not node.enabled:
            raise Forbidden(DISABLED)
        return self._sign(node)

    def _sign(self, node: NodeRow) -> Signed:
        """Never dated before the moment from which its tokens count."""
        return self._tokens.node(node.id, node.slug, max(now(), node.tokens_valid_from))

    async def authenticate(self, token: str) -> NodePrincipal:
        """Raises Unauthenticated, Forbidden for a disabled node."""
        node = await self.authenticate_row(token)
        return NodePrincipal(node.id, node.slug)

    async def authenticate_row(self, token: str) -> NodeRow:
        claims = self._tokens.read_node(token)

        async def find(conn: Connection) -> NodeRow | None:
            return await nodes.get_node(conn, claims.node_id)

        node = await self._db.read(find)
        if node is None or node.slug != claims.slug:
            raise Unauthenticated(INVALID)
        if not node.enabled:
            raise Forbidden(DISABLED)
        if claims.issued_at < node.tokens_valid_from:
            raise Unauthenticated(INVALID)
        return node


def next_second() -> datetime:
    """Tokens are dated by whole seconds: from then on, none that was issued before counts."""
    return now().replace(microsecond=0) + timedelta(seconds=1)


async def _find_join(conn: Connection, text: str | None, slug: str) -> JoinToken | None:
    if not text:
        return None
    found = await join_tokens.lock_token(conn, token_hash(text))
    return found if found is not None and found.admits(slug, now()) else None


async def _use(conn: Connection, node: NodeId, admission: Admission, join: JoinToken | None) -> None:
    if admission.use_join and join is not None:
        await join_tokens.use_token(conn, join.id)
        await nodes.set_placement(conn, node, join.labels)
