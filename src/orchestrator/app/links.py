"""Whose node it is: taking it over, keeping its lease, ending it. Each is one transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from orchestrator.app.clock import new_id, now
from orchestrator.domain.ability import ability_of, sandbox_allowed
from orchestrator.domain.attempts import AttemptRow, End, end_attempt
from orchestrator.domain.dispatch import Held
from orchestrator.domain.ids import AssignmentId, LinkId, NodeId
from orchestrator.domain.reports import Ref
from orchestrator.domain.selection import NodeAbility
from orchestrator.domain.states import Outcome
from orchestrator.faults import reach
from orchestrator.store import attempts, links, refusals
from orchestrator.store.db import Connection, Database, Row


@dataclass(frozen=True, slots=True)
class Hello:
    node_id: NodeId
    slug: str
    spool_id: str
    agent_start_id: str
    agent_version: str
    slots: int
    held: tuple[Ref, ...]
    dial: int = 0


@dataclass(frozen=True, slots=True)
class Occupied:
    """An attempt that holds a slot of its node; `stopping` ones have ended and are not known to have stopped."""

    ref: Ref
    timeout_seconds: float
    accepted: bool
    started: bool
    stopping: bool
    stop_reason: str = ""
    """Why the node is to be asked to stop it; empty when it is not to be."""


@dataclass(frozen=True, slots=True)
class Takeover:
    link_id: LinkId
    keep: tuple[Ref, ...]
    kill: tuple[Ref, ...]
    resend: tuple[Held, ...]
    occupied: tuple[Occupied, ...]


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What the operators and the node's own reports say about it; read anew whenever `cynode_nodes` rings."""

    node_id: NodeId
    enabled: bool
    draining: bool
    config_version: str
    config_acked: bool
    config: Mapping[str, object]
    max_timeout: float | None
    ability: NodeAbility
    sandbox_allowed: bool
    tokens_valid_from: float

    @property
    def takes_work(self) -> bool:
        return self.enabled and not self.draining and self.config_acked and self.sandbox_allowed


class AlreadyLinked(Exception):
    """Another agent, with another spool, is linked as this node and alive."""


class Overtaken(Exception):
    """The same agent has dialled again, and that later hello was committed first."""


@dataclass(slots=True)
class _Sorted:
    keep: list[Ref] = field(default_factory=list)
    kill: list[Ref] = field(default_factory=list)
    resend: list[AssignmentId] = field(default_factory=list)
    occupied: list[Occupied] = field(default_factory=list)
    changed: list[AttemptRow] = field(default_factory=list)


class Links:
    def __init__(self, db: Database, control_plane: UUID) -> None:
        self._db = db
        self._control_plane = control_plane

    async def take_over(self, hello: Hello) -> Takeover:
        """Makes the node this control-plane's, from the commit on. Raises AlreadyLinked, Overtaken."""
        link = LinkId(new_id())

        async def work(conn: Connection) -> Takeover:
            row = await links.lock_link(conn, hello.node_id)
            if row["link_id"] is not None and row["spool_id"] != hello.spool_id:
                raise AlreadyLinked(hello.slug)
            if row["agent_start_id"] == hello.agent_start_id and hello.dial < row["dial"]:
                raise Overtaken(hello.slug)
            held = {ref.assignment_id: ref for ref in hello.held}
            found = _sort(await attempts.lock_on_node(conn, hello.node_id), held, hello.spool_id)
            await attempts.save(conn, found.changed)
            await links.take_link(
                conn, hello.node_id, link, hello.spool_id, hello.agent_start_id, self._control_plane, hello.dial
            )
            await links.note_hello(conn, hello.node_id, hello.agent_version, hello.slots)
            resend = await links.read_held(conn, found.resend) if found.resend else []
            reach("control_plane.hello.before_commit")
            return Takeover(link, tuple(found.keep), tuple(found.kill), tuple(resend), tuple(found.occupied))

        takeover = await self._db.transact(work)
        reach("control_plane.hello.after_commit")
        return takeover

    async def close(self, node: NodeId, link: LinkId) -> None:
        """The link is gone, the lease runs on."""

        async def work(conn: Connection) -> None:
            await links.close_link(conn, node, link)
            reach("control_plane.close.before_commit")

        await self._db.transact(work)
        reach("control_plane.close.after_commit")

    async def renew(self, beats: Sequence[tuple[NodeId, LinkId]]) -> dict[NodeId, LinkId | None]:
        """Commits a heartbeat of each; answers the nodes that are another link's by now, or nobody's."""

        async def work(conn: Connection) -> set[NodeId]:
            return await links.renew(conn, beats)

        reach("control_plane.heartbeat.before_commit")
        renewed = await self._db.commit_one(work)
        reach("control_plane.heartbeat.after_commit")
        lost = {node: link for node, link in beats if node not in renewed}

        async def ask(conn: Connection) -> dict[NodeId, LinkId | None]:
            return await links.hold_mine(conn, lost)

        return await self._db.read(ask) if lost else {}

    async def probe(self) -> None:
        await self._db.transact(links.probe)

    async def counters(self) -> dict[NodeId, int]:
        """How often each held lease was renewed."""
        return await self._db.read(links.read_counters)

    async def expire(self, node: NodeId, renewals: int) -> int | None:
        """Ends the lease unless it was renewed, with all that the node held; how many attempts, None if renewed."""

        async def work(conn: Connection) -> int | None:
            await links.lock_link(conn, node)
            if not await links.expire_lease(conn, node, renewals):
                return None
            ended = await _end_all(conn, node)
            reach("control_plane.expire.before_commit")
            return ended

        ended = await self._db.transact(work)
        reach("control_plane.expire.after_commit")
        return ended

    async def release(self, node: NodeId, link: LinkId) -> int:
        """Ends a disabled node's lease and what is open on it, in one commit; nothing if a later link has the node."""

        async def work(conn: Connection) -> int:
            if (await links.lock_link(conn, node))["link_id"] != link:
                return 0
            await links.release_lease(conn, node)
            ended = await _end_all(conn, node)
            reach("control_plane.release.before_commit")
            return ended

        ended = await self._db.transact(work)
        reach("control_plane.release.after_commit")
        return ended

    async def occupied(self, nodes: Sequence[NodeId]) -> list[tuple[NodeId, Occupied]]:
        """Every attempt that holds a slot of one of these nodes, whichever link assigned it."""

        async def work(conn: Connection) -> list[tuple[NodeId, Occupied]]:
            return [(row["node_id"], _occupied_row(row)) for row in await links.read_occupied(conn, nodes)]

        return await self._db.read(work)

    async def recheck(self, node: NodeId, link: LinkId, wanted: Sequence[AssignmentId]) -> list[Held]:
        """Those of the assignments that may be sent again: open and unaccepted, on a node that is still this link's."""

        async def work(conn: Connection) -> list[Held]:
            if await links.hold_mine(conn, {node: link}):
                return []
            rows = await attempts.lock_attempts(conn, wanted, [node])
            again = [a for a, row in rows.items() if row.is_open and row.accepted_at is None]
            return await links.read_held(conn, again) if again else []

        return await self._db.transact(work)

    async def settings(self, nodes: Sequence[NodeId]) -> dict[NodeId, NodeSettings]:
        async def work(conn: Connection) -> dict[NodeId, NodeSettings]:
            refused = await refusals.read_refusals(conn, nodes)
            rows = await links.read_settings(conn, nodes)
            return {row["id"]: _settings(row, refused.get(row["id"], frozenset())) for row in rows}

        return await self._db.read(work)


def _sort(rows: Mapping[AssignmentId, AttemptRow], held: dict[AssignmentId, Ref], spool_id: str) -> _Sorted:
    """What becomes of each attempt that held a slot, and of each that the node names."""
    found, at = _Sorted(), now()
    for assignment, row in rows.items():
        named = held.pop(assignment, None)
        if not row.is_open:
            _sort_ended(found, row, named is not None)
        elif row.spool_id != spool_id or (named is None and row.accepted_at is not None):
            end_attempt(row, End(Outcome.LOST, at), jitter=0.5)
            found.changed.append(row)
            if named is not None:
                found.kill.append(named)
        elif named is None:
            found.resend.append(assignment)
            found.occupied.append(_occupied(row))
        else:
            if row.accepted_at is None:
                row.accepted_at = at
                found.changed.append(row)
            found.keep.append(named)
            found.occupied.append(_occupied(row))
    found.kill += held.values()  # ended and stopped long ago, or never of this node
    return found


def _sort_ended(found: _Sorted, row: AttemptRow, named: bool) -> None:
    if named:
        found.kill.append(_ref(row))
        found.occupied.append(_occupied(row))
    elif row.accepted_at is None:  # it may be about to take what it was sent on its last link: it is asked
        found.occupied.append(_occupied(row))
    else:
        row.stopped_at = now()
        found.changed.append(row)


def _ref(row: AttemptRow) -> Ref:
    return Ref(row.job_id, row.attempt, row.assignment_id)


def _occupied(row: AttemptRow) -> Occupied:
    return Occupied(
        _ref(row), row.timeout_seconds, row.accepted_at is not None, row.started_at is not None, not row.is_open
    )


def _occupied_row(row: Row) -> Occupied:
    ended = row["ended_at"] is not None
    asked = ended and row["stop_requested_at"] is not None
    return Occupied(
        Ref(row["job_id"], row["attempt"], row["assignment_id"]),
        row["timeout_seconds"],
        row["accepted_at"] is not None,
        row["started_at"] is not None,
        ended,
        (row["stop_reason"] or "canceled") if asked else "",
    )


async def _end_all(conn: Connection, node: NodeId) -> int:
    rows = list((await attempts.lock_on_node(conn, node)).values())
    at = now()
    for row in rows:
        if row.is_open:
            end_attempt(row, End(Outcome.LOST, at), jitter=0.5)
        else:
            row.stopped_at = at
    await attempts.save(conn, rows)
    return len(rows)


def _settings(row: Row, refused: frozenset[int]) -> NodeSettings:
    config = row["payload"] or {}
    limit = (config.get("constraints") or {}).get("max_job_timeout_seconds")
    return NodeSettings(
        node_id=row["id"],
        enabled=row["enabled"],
        draining=row["drain_requested_at"] is not None,
        config_version=row["config_version"] or "",
        config_acked=row["config_ack_status"] == "applied" and row["acked_config_version"] == row["config_version"],
        config=config,
        max_timeout=float(limit) if limit else None,
        ability=ability_of(row["capability"], row["placement_labels"], refused),
        sandbox_allowed=sandbox_allowed(row["capability"]),
        tokens_valid_from=row["tokens_valid_from"].timestamp(),
    )
