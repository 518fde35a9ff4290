"""Both ends of the link without I/O: the real rules and encodings, over a network, a disk and a database of memory.

Server: `Ledger`, the sorting of hello, the end of a lease. Node: `Attempts`, the spool's records as bytes, `Kept`, the
report frames. What a process keeps in memory is lost when it is killed; what was synced, or committed, is not.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from node_agent.attempts import Attempt, Attempts, Stage
from node_agent.reports import finished_fields, frames, started_fields
from node_agent.segments import Found, Segment
from node_agent.spool_files import Kept
from node_agent.spool_format import (
    NOBODY,
    REPORTS,
    Entry,
    Kind,
    encode,
    encode_clock,
    encode_output,
    salt_of,
    scan,
)
from node_agent.spool_format import Ref as SpoolRef
from node_link import codec, messages
from orchestrator.app.clock import now
from orchestrator.app.links import _sort
from orchestrator.domain.attempts import AttemptRow, End, JobRow, end_attempt
from orchestrator.domain.ids import AssignmentId, JobId, NodeId, TaskId, UserId
from orchestrator.domain.reports import Accepted, Fact, Ledger, Ref, Rejected, Verdict
from orchestrator.domain.states import JobStatus, Outcome, TaskStatus
from orchestrator.links.session import _settled_position
from orchestrator.links.wire import facts

SLOTS = 2
Entries = list[tuple[int | None, Fact | None]]


@dataclass
class Link:
    """What is on its way. Each direction keeps its order; a frame of an old link may come after a new one's."""

    number: int
    up: "deque[object]" = field(default_factory=deque)
    down: "deque[object]" = field(default_factory=deque)


class Server:
    def __init__(self) -> None:
        self.jobs: dict[JobId, JobRow] = {}
        self.rows: dict[AssignmentId, AttemptRow] = {}
        self.output: dict[AssignmentId, bytes] = {}
        self.link_of: dict[NodeId, int | None] = {}
        self.spool_of: dict[NodeId, str] = {}
        self.counted: Counter[JobId] = Counter()
        self._ended: dict[AssignmentId, tuple[object, ...]] = {}

    def submit(self, max_attempts: int) -> None:
        job = JobId(UUID(int=1000 + len(self.jobs)))
        self.jobs[job] = JobRow(
            job, TaskId(job), UserId(UUID(int=1)), 1, JobStatus.QUEUED, 0, 0, 0, max_attempts, frozenset(), None,
            TaskStatus.PENDING,
        )  # fmt: skip

    def on_node(self, node: NodeId) -> dict[AssignmentId, AttemptRow]:
        return {a: row for a, row in self.rows.items() if row.node_id == node and row.stopped_at is None}

    def claim(self, node: NodeId) -> Ref | None:
        queued = next((job for job in self.jobs.values() if job.status is JobStatus.QUEUED), None)
        if queued is None or self.link_of.get(node) is None or len(self.on_node(node)) >= SLOTS:
            return None
        queued.attempt += 1
        queued.status = JobStatus.ASSIGNED
        assignment = AssignmentId(UUID(int=100_000 + len(self.rows)))
        self.rows[assignment] = AttemptRow(
            queued.id, queued.attempt, assignment, node, self.spool_of[node], 60.0, None, None, None, None, None, None,
            None, 0, 0, False, False, None, None, None, None, None, queued,
        )  # fmt: skip
        self.output[assignment] = b""
        return Ref(queued.id, queued.attempt, assignment)

    def hello(self, node: NodeId, link: int, spool_id: str, held: list[Ref]) -> tuple[list[Ref], list[Ref]]:
        """What it kills and what is sent again."""
        found = _sort(self.on_node(node), {ref.assignment_id: ref for ref in held}, spool_id)
        self.link_of[node], self.spool_of[node] = link, spool_id
        self._note()
        again = [self.rows[a] for a in found.resend]
        return found.kill, [Ref(row.job_id, row.attempt, row.assignment_id) for row in again]

    def report(self, node: NodeId, link: int, entries: Entries) -> int | str | None:
        """The position to acknowledge, or why the link ends."""
        if self.link_of.get(node) != link:
            return "taken over"
        mine = {a: row for a, row in self.rows.items() if row.node_id == node}
        ledger, settled, gap = Ledger(mine), 0, ""
        for _, fact in entries:
            if fact is None:
                continue
            verdict, why = ledger.apply(fact)
            if verdict is Verdict.GAP:
                gap = why
                break
            settled += 1
        for chunk in ledger.chunks:
            assert chunk.offset == len(self.output[chunk.row.assignment_id]), "stored with a hole or twice"
            self.output[chunk.row.assignment_id] += chunk.data
        self._note()
        return gap or _settled_position(entries, settled)

    def end_lease(self, node: NodeId) -> None:
        self.link_of[node] = None
        for row in self.on_node(node).values():
            if row.is_open:
                end_attempt(row, End(Outcome.LOST, now()), jitter=0.5)
            else:
                row.stopped_at = now()
        self._note()

    def cancel(self, job: JobRow) -> None:
        for row in self.rows.values():
            if row.job is job and row.is_open:
                row.outcome, row.ended_at, row.stop_requested_at = Outcome.CANCELED, now(), now()
        job.status, job.ended_at = JobStatus.CANCELED, now()
        self._note()

    def _note(self) -> None:
        """After each commit: what had ended has not changed, and one attempt at most counts."""
        for assignment, row in self.rows.items():
            if row.ended_at is None:
                continue
            end = (row.outcome, row.exit_code, row.error, row.ended_at)
            before = self._ended.setdefault(assignment, end)
            assert before == end, f"changed after its end: {before} became {end}"
        for job in self.jobs.values():
            counting = [r for r in self.rows.values() if r.job is job and r.outcome is Outcome.COMPLETED]
            assert len(counting) == (job.status is JobStatus.COMPLETED), "not one result counts"


class Node:
    def __init__(self, node: NodeId, started: Counter[AssignmentId], printed: dict[AssignmentId, bytes]) -> None:
        self.id = node
        self.spool_id = f"{node.int:032x}"
        self.link: Link | None = None
        self._started = started
        self._printed = printed
        clock = Entry(Kind.CLOCK, 0, 0.0, NOBODY, encode_clock("boot", 0.0))
        self._disk = encode(clock, base=0, salt=salt_of(self.spool_id))
        self.restart()

    # the spool

    def restart(self) -> None:
        """Killed and started again: what earlier runs left is ended, then reported lost."""
        self.link = None
        self._pending: list[tuple[Kind, SpoolRef, Callable[[], bytes], Attempt | None]] = []
        found = Found(self.spool_id, [Segment(Path("none"), 1, 0, -1)], [scan(self._disk, salt=salt_of(self.spool_id))])
        assert not found.scans[0].damaged
        kept = Kept.of(found)
        self._entries = [entry for entry in found.scans[0].entries if entry.kind in REPORTS]
        self._position, self._acked = kept.next_position, kept.acked
        self._ends = {ref.assignment_id: position for position, ref in kept.finished.values()}
        self.attempts = Attempts()
        for _, ref in kept.finished.values():
            self.attempts.add(Attempt(UUID(bytes=ref.assignment_id), ref, None, Stage.FINISHED))
        for key, ref in kept.unfinished.items():
            sent = kept.sent.get(key)
            attempt = Attempt(UUID(bytes=ref.assignment_id), ref, None, Stage.FINISHED)
            self.attempts.add(attempt)
            self._pending.append(
                (Kind.FINISHED, ref, lambda sent=sent: finished_fields("lost", started=True, total_bytes=sent), attempt)  # type: ignore[misc]
            )

    def sync(self) -> None:
        """One batch becomes durable; what it promised is said."""
        accepted = []
        for kind, ref, fields, attempt in sorted(self._pending, key=lambda item: item[0]):
            entry = Entry(kind, self._position, 0.0, ref, fields())
            self._disk += encode(entry, base=len(self._disk), salt=salt_of(self.spool_id))
            if kind in REPORTS:
                self._entries.append(entry)
                self._position += 1
            if kind is Kind.FINISHED:
                self._ends[ref.assignment_id] = entry.position
            if kind is Kind.TAKEN and attempt is not None and attempt.stage is Stage.TAKING:
                attempt.stage = Stage.TAKEN
                accepted.append(_ref(ref))
        self._pending = []
        if accepted and self.link:
            self.link.up.append([(None, Accepted(ref, now())) for ref in accepted])

    def send(self, most: int) -> None:
        """The next reports, in the bytes of the wire."""
        if self.link is None:
            return
        waiting = [entry for entry in self._entries if entry.position >= self._sent][:most]
        for _, text in frames([(entry, 0.0) for entry in waiting]):
            self.link.up.append(text)
        if waiting:
            self._sent = waiting[-1].position + 1

    # the link

    def connect(self, link: Link) -> list[Ref]:
        self.attempts.link_ended()
        self.link, self._sent = link, self._acked
        return [_ref(attempt.ref) for attempt in self.attempts if attempt.stage is not Stage.TAKING]

    def assign(self, ref: Ref) -> None:
        attempt = self.attempts.get(ref.assignment_id)
        if attempt is not None:
            if attempt.stage is not Stage.TAKING:
                self._say([(None, Accepted(ref, now()))])
        elif self.attempts.is_settled(ref.assignment_id):
            if reason := self.attempts.settled_reason(ref.assignment_id):
                self._say([(None, Rejected(ref, now(), reason))])
        elif self.attempts.open >= SLOTS:
            self.attempts.settle(ref.assignment_id, "busy")
            self._say([(None, Rejected(ref, now(), "busy"))])
        else:
            spool_ref = SpoolRef.of(ref.job_id, ref.attempt, ref.assignment_id)
            attempt = Attempt(ref.assignment_id, spool_ref, None, Stage.TAKING)
            self.attempts.add(attempt)
            self._pending.append((Kind.TAKEN, spool_ref, bytes, attempt))

    def cancel(self, ref: Ref) -> None:
        attempt = self.attempts.get(ref.assignment_id)
        if attempt is None:
            self.attempts.settle(ref.assignment_id, "canceled")
            self._say([(None, Rejected(ref, now(), "canceled"))])
        elif attempt.stage is Stage.TAKING:
            self.sync()
            self.end(attempt, "canceled")
        elif attempt.stage is not Stage.FINISHED:
            self.end(attempt, "canceled")

    def acknowledge(self, position: int) -> None:
        assert position <= self._position, "acknowledged what was never written"
        self._acked = max(self._acked, position)
        for key, end in list(self._ends.items()):
            if end < self._acked:
                del self._ends[key]
                self.attempts.forget(UUID(bytes=key))
                self.attempts.settle(UUID(bytes=key), None)

    def _say(self, entries: Entries) -> None:
        if self.link:
            self.link.up.append(entries)

    # the jobs

    def run(self, attempt: Attempt) -> None:
        attempt.stage = Stage.RUNNING
        self._started[AssignmentId(attempt.assignment_id)] += 1
        self._pending.append((Kind.STARTED, attempt.ref, lambda: started_fields("process"), attempt))

    def print(self, attempt: Attempt, data: bytes) -> None:
        offset = attempt.sent["stdout"]
        attempt.sent["stdout"] += len(data)
        self._printed[AssignmentId(attempt.assignment_id)] = (
            self._printed.get(AssignmentId(attempt.assignment_id), b"") + data
        )
        self._pending.append((Kind.OUTPUT, attempt.ref, lambda: encode_output("stdout", offset, data), attempt))

    def end(self, attempt: Attempt, outcome: str) -> None:
        ran = attempt.stage is Stage.RUNNING
        code = 0 if outcome == "completed" else None
        total = dict(attempt.sent) if ran else None
        self.attempts.finish(attempt)
        self._pending.append(
            (
                Kind.FINISHED,
                attempt.ref,
                lambda: finished_fields(outcome, started=ran, exit_code=code, total_bytes=total),
                attempt,
            )
        )


def entries_of(frame: object) -> Entries:
    """As the server's session reads it."""
    if not isinstance(frame, str):
        return frame  # type: ignore[return-value]
    message = codec.decode(frame)
    assert isinstance(message, messages.JobsStarted | messages.JobsOutput | messages.JobsFinished)
    return list(facts(message, now()))


def _ref(ref: SpoolRef) -> Ref:
    return Ref(JobId(UUID(bytes=ref.job_id)), ref.attempt, AssignmentId(UUID(bytes=ref.assignment_id)))
