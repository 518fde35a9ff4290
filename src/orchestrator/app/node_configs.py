"""Issuing a node's configuration: a new version whenever its content changes, and only then."""

from collections.abc import Mapping
from typing import Any

import structlog
from ulid import ULID

from orchestrator.app.clock import now
from orchestrator.domain.capability import read_report
from orchestrator.domain.errors import Invalid, NotFound
from orchestrator.domain.ids import NodeId
from orchestrator.domain.node_config import ConfigRules, make_config, same_content, with_base_url
from orchestrator.domain.nodes import AckStatus
from orchestrator.store import nodes, refusals
from orchestrator.store.bells import ring_nodes
from orchestrator.store.db import Connection, Database
from orchestrator.store.nodes import NodeRow

LONGEST_ERROR = 2000
NO_NODE = "Node not found"
log = structlog.stdlib.get_logger(__name__)


class NodeConfigs:
    def __init__(self, db: Database, rules: ConfigRules) -> None:
        self._db = db
        self._rules = rules

    def base_url(self, seen: str) -> str:
        """The address that nodes are told: the public one, else the one by which this request came."""
        return self._rules.public_url or seen

    async def of_node(self, node: NodeId, seen_url: str) -> dict[str, Any]:
        async def find(conn: Connection) -> NodeRow:
            row = await nodes.get_node(conn, node)
            if row is None:
                raise NotFound(NO_NODE)
            return row

        return await self.current(await self._db.read(find), seen_url)

    async def current(self, node: NodeRow, seen_url: str) -> dict[str, Any]:
        """What is in force, issued anew if the server's settings have changed since."""

        async def find(conn: Connection) -> dict[str, Any] | None:
            return await nodes.get_config(conn, node.id, node.config_version)

        async def reissue(conn: Connection) -> dict[str, Any]:
            locked = await nodes.lock_node(conn, node.id)
            assert locked is not None
            return await self.issue_if_changed(conn, locked, _target(locked), seen_url)

        found = await self._db.read(find)
        if found is None or not self._is_current(found, self._make(node, _target(node), seen_url)):
            found = await self._db.transact(reissue)
        return with_base_url(found, self.base_url(seen_url))

    async def issue_if_changed(
        self, conn: Connection, node: NodeRow, worker_api_url: str, seen_url: str | None
    ) -> dict[str, Any]:
        """The configuration in force. `node`: its locked row. What it refused under the old one it may take now."""
        old = await nodes.get_config(conn, node.id, node.config_version)
        if seen_url is None:
            seen_url = "" if old is None else old["orchestrator"]["base_url"]
        new = self._make(node, worker_api_url, seen_url)
        if old is not None and self._is_current(old, new):
            return old
        await nodes.insert_config(conn, node.id, new, now())
        await refusals.clear_refusals(conn, node.id)
        await ring_nodes(conn)
        return new

    def _is_current(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
        return same_content(old, new, fixed_url=self._rules.public_url is not None)

    def _make(self, node: NodeRow, worker_api_url: str, seen_url: str) -> dict[str, Any]:
        version = next_version(node.config_version)
        return make_config(self._rules, node.slug, worker_api_url, self.base_url(seen_url), version, now())

    async def record_ack(self, node: NodeId, version: str, status: str, error: str | None) -> None:
        """An ack of an old version is recorded and has no effect. Raises Invalid."""
        if status not in list(AckStatus):
            raise Invalid(f"status: must be one of {', '.join(AckStatus)}", field="status")
        text = None if error is None else error[:LONGEST_ERROR]

        async def work(conn: Connection) -> bool:
            issued, counts = await nodes.record_ack(conn, node, version, now(), AckStatus(status), text)
            if counts:
                await ring_nodes(conn)
            return issued

        if not await self._db.transact(work):
            raise Invalid("config_version: no such version was issued to this node", field="config_version")
        if status != AckStatus.APPLIED:
            log.warning("a node did not apply its configuration", node_id=str(node), status=status, error=text)


def _target(node: NodeRow) -> str:
    return read_report(node.capability).worker_api_url


def next_version(last: str | None) -> str:
    """A ULID above `last`, also when the clock was set back."""
    fresh = ULID()
    if last is not None and str(fresh) <= last:
        fresh = ULID.from_int(int(ULID.from_str(last)) + 1)
    return str(fresh)
