"""The one place where facts about attempts are committed: many links' reports in one transaction."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from orchestrator.domain.attempts import AttemptRow
from orchestrator.domain.errors import BadData, DatabaseAway
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

    def add(self, more: "Judged") -> None:
        """What follows in the same report."""
        self.settled += more.settled
        self.gap = more.gap
        self.states.update(more.states)
        self.gone |= more.gone
        self.refused |= more.refused


class LinkLost(Exception):
    """The node is not this link's any more; `other` is the link that holds it, None when none does."""

    def __init__(self, other: LinkId | None) -> None:
        super().__init__("taken over" if other else "closed")
        self.other = other


@dataclass(slots=True)
class _Begun:
    """One link's report that did not go into one commit, and how far it is."""

    report: Report
    at_once: int
    most: int = 1 << 20
    went_well: bool = False
    done: Judged = field(default_factory=Judged)

    @property
    def piece(self) -> Report:
        return replace(self.report, facts=self.report.facts[self.done.settled :][: self.at_once])

    @property
    def is_over(self) -> bool:
        return self.done.gap is not None or self.done.settled == len(self.report.facts)

    def widen(self) -> None:
        self.at_once = min(self.most, 2 * self.at_once)
        self.went_well = True

    def narrow(self) -> None:
        """What fails just after less went well was too much; else the database may only be away."""
        self.at_once = max(1, self.at_once // 2)
        if self.went_well:
            self.most = self.at_once
        self.went_well = False


class Reports:
    def __init__(self, db: Database) -> None:
        self._db = db
        self._begun: _Begun | None = None

    async def write(self, reports: Sequence[Report]) -> list[Judged | Exception]:
        """Commits all of them or raises; the answer for a link that lost its node is a LinkLost.

        After a BadData whoever batches asks again for each alone; after a DatabaseAway it may be called again. A report
        that is too much for one commit, which looks like a database that is away, is then committed in pieces.
        """
        if len(reports) > 1:
            return await self._commit(reports)
        [report] = reports
        if self._begun is None or self._begun.report is not report:
            self._begun = None
            try:
                return [await self._settle(report)]
            except DatabaseAway:
                self._begun = _Begun(report, max(1, len(report.facts) // 2))
                raise
        answer = await self._in_pieces(self._begun)
        self._begun = None
        return [answer]

    async def _in_pieces(self, begun: _Begun) -> Judged | Exception:
        while not begun.is_over:
            try:
                answer = await self._settle(begun.piece)
            except DatabaseAway:
                begun.narrow()
                raise
            if isinstance(answer, Exception):
                return answer
            begun.widen()
            begun.done.add(answer)
        return begun.done

    async def _settle(self, report: Report) -> Judged | Exception:
        try:
            [answer] = await self._commit([report])
        except BadData as error:
            return await self._one_by_one(report, error)
        return answer

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
            answer = await self._settle(replace(report, facts=(fact,)))
            if isinstance(answer, Exception):
                return answer
            whole.add(answer)
            if whole.gap is not None:
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
