"""Claims queued jobs for the links of this control-plane, and keeps the queue's house."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from orchestrator.app.clock import new_id
from orchestrator.domain.able import AbleSets
from orchestrator.domain.dispatch import Candidate, Held
from orchestrator.domain.ids import AssignmentId, LinkId, NodeId
from orchestrator.domain.selection import NodeAbility, NodeRoom, deal, even_slots
from orchestrator.faults import reach
from orchestrator.store import claims, due, links
from orchestrator.store.db import Connection, Database
from orchestrator.store.even_claims import EvenClaim, claim_evenly

FEW_ROWS, MOST_ROWS = 128, 500
"""Of one claim. What fills all room at once comes back at once, too: by quarters, claims, nodes and reports overlap."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What goes to which node, and the nodes that turned out to be another link's (None: nobody's)."""

    given: dict[NodeId, list[Held]] = field(default_factory=dict)
    not_mine: dict[NodeId, LinkId | None] = field(default_factory=dict)
    passed_over: bool = False
    """Nothing was taken, since another control-plane, or a cancel, had locked what was looked at: look again soon."""
    exhausted: bool = False
    """All was taken that could be: only what others had locked, and then let go, would be found by looking again."""


@dataclass(frozen=True, slots=True)
class Open:
    """A linked node with room for more."""

    node_id: NodeId
    link_id: LinkId
    spool_id: str
    slug: str
    free: int
    ability: NodeAbility
    max_timeout: float | None = None


class Dispatch:
    def __init__(self, db: Database) -> None:
        self._db = db
        self._able = AbleSets()
        self._tidied_up_to = 0

    async def claim(self, nodes: Sequence[Open]) -> Claim:
        """Assigns up to as many jobs as the nodes have room; committed when it returns, and to be sent then."""
        claim = await self._claim_evenly([self._candidate(node) for node in nodes])
        if claim is None:
            claim = await self._claim_by_ability(nodes)
        if claim.given:
            reach("control_plane.claim.after_commit")
        return claim

    async def _claim_evenly(self, nodes: Sequence[Candidate]) -> Claim | None:
        """In one statement. None when that cannot be: the nodes differ, one is not ours any more, or jobs ask for
        what was not known."""
        able = nodes[0].able if nodes else frozenset()
        if not able or any(node.able is not able and node.able != able for node in nodes):
            return None
        rooms = [NodeRoom(node.node_id, node.slug, node.free, able) for node in nodes]
        number = {node.node_id: nth for nth, node in enumerate(nodes, start=1)}
        slots = [(AssignmentId(new_id()), number[room.node_id]) for room in even_slots(rooms, _most(rooms))]

        async def work(conn: Connection) -> EvenClaim:
            return await claim_evenly(conn, sorted(able), nodes, slots)

        reach("control_plane.claim.before_commit")
        found = await self._db.commit_one(work)
        knew_all = found.requirements == len(self._able.requirements)
        if not found.given and (not found.by_us or not knew_all):
            return None
        if not knew_all:
            await self._db.read(self._learn_requirements)
        given = {node: list(held) for node, held in found.given.items()}
        return Claim(given, passed_over=found.passed_over, exhausted=found.exhausted and knew_all)

    async def _claim_by_ability(self, nodes: Sequence[Open]) -> Claim:
        async def work(conn: Connection) -> Claim:
            return await self._claim(conn, nodes)

        return await self._db.transact(work)

    async def _learn_requirements(self, conn: Connection) -> None:
        new = await claims.new_requirements(conn, self._able.requirements)
        self._able.learn((number, json.loads(body)) for number, body in new)

    async def _claim(self, conn: Connection, nodes: Sequence[Open]) -> Claim:
        await self._learn_requirements(conn)
        not_mine = await links.hold_mine(conn, {node.node_id: node.link_id for node in nodes})
        candidates = {node.node_id: self._candidate(node) for node in nodes if node.node_id not in not_mine}
        wanted = frozenset[int]().union(*(c.able for c in candidates.values()))
        if not wanted:
            return Claim(not_mine=not_mine)
        rows = await claims.take_rows(conn, sorted(wanted), _most(candidates.values()))
        rooms = [NodeRoom(c.node_id, c.slug, c.free, c.able) for c in candidates.values()]
        dealt = deal([(row.requirement_id, row) for row in rows], rooms)
        given: dict[NodeId, list[Held]] = {}
        if dealt:
            parts = [(row, candidates[room.node_id], AssignmentId(new_id())) for row, room in dealt]
            held = await claims.assign(conn, parts)
            for (_, room), one in zip(dealt, held, strict=True):
                given.setdefault(room.node_id, []).append(one)
            reach("control_plane.claim.before_commit")
        return Claim(given, not_mine, passed_over=not rows and await claims.some_wait(conn, sorted(wanted)))

    def _candidate(self, node: Open) -> Candidate:
        able = self._able.of(node.node_id, node.ability)
        return Candidate(node.node_id, node.link_id, node.spool_id, node.slug, node.free, able, node.max_timeout)

    async def promote_due(self) -> float | None:
        """Queues delayed jobs that are due, fails those that waited too long; in how many seconds the next is due."""

        async def work(conn: Connection) -> float | None:
            again = await due.promote(conn)
            reach("control_plane.due.before_commit")
            return again

        again = await self._db.transact(work)
        reach("control_plane.due.after_commit")
        return again

    async def rest_empty_groups(self) -> None:
        """A page of the active groups, the next one each time."""

        async def work(conn: Connection) -> int:
            return await claims.rest_empty_groups(conn, self._tidied_up_to)

        self._tidied_up_to = await self._db.transact(work)


def _most(nodes: Iterable[Candidate | NodeRoom]) -> int:
    room = sum(node.free for node in nodes)
    return min(room, MOST_ROWS, max(FEW_ROWS, room // 2))
