"""The one place where facts about attempts are committed: many links' reports in one transaction."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from orchestrator.domain.attempts import AttemptRow
from orchestrator.domain.errors import BadData
from orchestrator.domain.ids import AssignmentId, LinkId, NodeId
from orchestrator.domain.reports import BadRecord, Fact, Ledger, Output, Rejected, Verdict
from orchestrator.faults import reach
from orchestrator.store import attempts, links
from orchestrator.store.bells import ring_nodes
from orchestrator.store.db import Connection, Database
from orchestrator.store.refusals import Refusal, note_refusals

LASTING_REFUSALS = ("unsupported", "forbidden_here")


def weight_of(fact: Fact) -> int:
    return len(fact.data) + 200 if isinstance(fact, Output) else 200


@dataclass(frozen=True, slots=True)
class Report:
    """What one link has to tell, in spool order."""

    node_id: NodeId
    link_id: LinkId
    facts: tuple[Fact, ...]

    @property
    def weight(self) -> int:
        return sum(weight_of(fact) for fact in self.facts)


@dataclass(frozen=True, slots=True)
class AttemptState:
    """What is committed of an attempt, for the link that holds its node."""

    accepted: bool
    started: bool
    ended: bool
    stopped: bool

    @classmethod
    def of(cls, row: AttemptRow) -> "AttemptState":
        return cls(row.accepted_at is not None, row.started_at is not None, not row.is_open, row.stopped_at is not None)


@dataclass(slots=True)
class Judged:
    """The first `settled` facts are committed, or will never count; a `gap` says why the others are not."""

    settled: int = 0
    gap: str | None = None
    states: dict[AssignmentId, AttemptState] = field(default_factory=dict)
    gone: set[AssignmentId] = field(default_factory=set)
    """Assignments that this node never had, or has no more."""
    refused: set[int] = field(default_factory=set)
    """Requirements that the node has just said it does not meet."""


class LinkLost(Exception):
    """The node is not this link's any more; `other` is the link that holds it, None when none does."""

    def __init__(self, other: LinkId | None) -> None:
        super().__init__("taken over" if other else "closed")
        self.other = other


class Reports:
    def __init__(self, db: Database) -> None:
        self._db = db

    async def write(self, reports: Sequence[Report]) -> list[Judged | Exception]:
        """Commits all of them or raises; the answer for a link that lost its node is a LinkLost."""
        try:
            return await self._commit(reports)
        except BadData as error:
            if len(reports) > 1:
                raise  # whoever batches asks again for each alone
            return [await self._one_by_one(reports[0], error)]

    async def _commit(self, reports: Sequence[Report]) -> list[Judged | Exception]:
        async def work(conn: Connection) -> list[Judged | Exception]:
            return await _apply(conn, reports)

        answers = await self._db.transact(work)
        reach("control_plane.report.after_commit")
        return answers

    async def _one_by_one(self, report: Report, error: BadData) -> Judged | Exception:
        """A fact that the database refuses is put on record as one that can never be stored."""
        if len(report.facts) == 1:
            fact = report.facts[0]
            kind = type(fact).__name__.lower()
            [answer] = await self._commit([replace(report, facts=(BadRecord(fact.ref, fact.at, kind, str(error)),))])
            return answer
        whole = Judged()
        for fact in report.facts:
            [answer] = await self.write([replace(report, facts=(fact,))])
            if isinstance(answer, Exception):
                return answer
            whole.states.update(answer.states)
            whole.gone |= answer.gone
            whole.refused |= answer.refused
            whole.settled += answer.settled
            if answer.gap is not None:
                whole.gap = answer.gap
                break
        return whole


async def _apply(conn: Connection, reports: Sequence[Report]) -> list[Judged | Exception]:
    not_mine = await links.hold_mine(conn, {r.node_id: r.link_id for r in reports})
    live = [r for r in reports if r.node_id not in not_mine]
    wanted = {fact.ref.assignment_id for r in live for fact in r.facts}
    rows = await attempts.lock_attempts(conn, wanted, {r.node_id for r in live}) if wanted else {}
    ledger = Ledger(rows, jitter=random.random())
    dropped: list[tuple[NodeId, AssignmentId, str, str]] = []
    refusals: list[Refusal] = []
    answers: list[Judged | Exception] = []
    for report in reports:
        if report.node_id in not_mine:
            answers.append(LinkLost(not_mine[report.node_id]))
        else:
            answers.append(_judge(report, ledger, dropped, refusals))
    await attempts.save(conn, ledger.changed.values(), ledger.chunks)
    await attempts.count_dropped(conn, dropped)
    if refusals:
        await note_refusals(conn, refusals)
        await ring_nodes(conn)
    reach("control_plane.report.before_commit")
    return answers


def _judge(
    report: Report,
    ledger: Ledger,
    dropped: list[tuple[NodeId, AssignmentId, str, str]],
    refusals: list[Refusal],
) -> Judged:
    judged = Judged()
    for fact in report.facts:
        assignment = fact.ref.assignment_id
        row = ledger.rows.get(assignment)
        if row is not None and row.node_id != report.node_id:
            row = None
        verdict, reason = ledger.apply(fact) if row else (Verdict.DROPPED, "no such assignment of this node")
        if verdict is Verdict.GAP:
            judged.gap = reason
            break
        judged.settled += 1
        if verdict is Verdict.DROPPED:
            kind = fact.kind if isinstance(fact, BadRecord) else type(fact).__name__.lower()
            dropped.append((report.node_id, assignment, kind, reason))
        if row is None:
            judged.gone.add(assignment)
            continue
        judged.states[assignment] = AttemptState.of(row)
        if verdict is Verdict.APPLIED and isinstance(fact, Rejected) and fact.reason in LASTING_REFUSALS:
            refusals.append(Refusal(report.node_id, row.job.requirement_id, fact.reason, fact.detail))
            judged.refused.add(row.job.requirement_id)
    return judged
