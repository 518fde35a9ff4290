"""Both ends of the link without I/O: the real rules and encodings, over a network, a disk and a database of memory.

Server: `NodeLink` with what it sends, `Ledger`, the sorting of hello, the judging of reports. Node: `Runner`,
`Attempts`, `Outbox`, the spool's records as bytes, what a restart reports. What a process keeps in memory is lost when
it is killed; what was synced, or committed, is not. Every message passes as the wire's text.

What is written here again, since it stands between awaits in the original: the order of `links.session.Session`, the
rules of `app.links` around their statements, and the runner's child that takes assignments.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import cast
from uuid import UUID

import trio

from node_agent.attempts import Attempt, Stage
from node_agent.bell import Bell
from node_agent.config import NodeConfig
from node_agent.outbox import Outbox
from node_agent.recover import report_lost
from node_agent.reports import frames, started_fields
from node_agent.runner import Runner
from node_agent.sandbox.noop import NoopRuntime
from node_agent.sandbox.spec import Ending
from node_agent.segments import Found, Segment
from node_agent.spool import Spool
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
from node_agent.spool_items import Ticket
from node_link import codec, messages
from orchestrator.app.clock import now
from orchestrator.app.links import NodeSettings, Occupied, Takeover, _sort
from orchestrator.app.reports import Report, _judge
from orchestrator.domain.attempts import AttemptRow, End, JobRow, end_attempt
from orchestrator.domain.dispatch import Held
from orchestrator.domain.ids import AssignmentId, JobId, LinkId, NodeId, TaskId, UserId
from orchestrator.domain.reports import Accepted, Fact, Finished, Ledger, NotListed, Ref, Rejected
from orchestrator.domain.selection import NodeAbility
from orchestrator.domain.states import JobStatus, Outcome, TaskStatus
from orchestrator.links.node_link import NodeLink
from orchestrator.links.session import _settled_position
from orchestrator.links.wire import facts, ref_of, wire_ref

SLOTS = 2
SPEC = '{"input_mode":"script","script":"true","requires":{"runtime":"noop"}}'
CONFIG = NodeConfig(("http://127.0.0.1",), "n", "n", {}, Path("none"), SLOTS, allow_noop=True)
Entries = list[tuple[int | None, Fact | None]]


@dataclass
class Wire:
    """What is on its way. Each direction keeps its order; a frame of an old link may come after a new one's."""

    number: int
    node: NodeId
    up: "deque[str]" = field(default_factory=deque)
    down: "deque[str]" = field(default_factory=deque)
    closed: bool = False
    """By the server; the node sees it."""


class Session:
    """What a control-plane keeps for one link."""

    def __init__(self, wire: Wire, link: NodeLink, sent: trio.MemoryReceiveChannel[object]) -> None:
        self.wire = wire
        self.link = link
        self.backlog: Entries = []
        self.to_resend: tuple[AssignmentId, ...] = ()
        self.read: tuple[list[Occupied], float] | None = None
        self._sent = sent

    def flush(self) -> None:
        while True:
            try:
                message = self._sent.receive_nowait()
            except trio.WouldBlock:
                return
            self.wire.down.append(codec.encode(cast(messages.Message, message)))


class Server:
    """Rows, and any number of control-planes over them; `make_link` stands for the rules of a link."""

    def __init__(self, make_link: Callable[..., NodeLink] = NodeLink) -> None:
        self.jobs: dict[JobId, JobRow] = {}
        self.rows: dict[AssignmentId, AttemptRow] = {}
        self.output: dict[AssignmentId, bytes] = {}
        self.link_of: dict[NodeId, int | None] = {}
        self.dial_of: dict[NodeId, tuple[str, int]] = {}
        self.spool_of: dict[NodeId, str] = {}
        self.sessions: dict[int, Session] = {}
        self.fenced: set[AssignmentId] = set()
        """Ended or freed with a lease: what their node does until it hears of it is its own affair."""
        self.sent_late: set[AssignmentId] = set()
        """Not sent to their node before they had ended."""
        self.unanswered: set[NodeId] = set()
        """Of a claim for them nobody heard that it was committed: the next may take the same room once more."""
        self._given: set[AssignmentId] = set()
        self._make_link = make_link
        self._ended: dict[AssignmentId, tuple[object, ...]] = {}

    def submit(self, max_attempts: int) -> None:
        job = JobId(UUID(int=1000 + len(self.jobs)))
        self.jobs[job] = JobRow(
            job, TaskId(job), UserId(UUID(int=1)), 1, JobStatus.QUEUED, 0, 0, 0, max_attempts, frozenset(), None,
            TaskStatus.PENDING,
        )  # fmt: skip

    def on_node(self, node: NodeId) -> dict[AssignmentId, AttemptRow]:
        return {a: row for a, row in self.rows.items() if row.node_id == node and row.stopped_at is None}

    def session_of(self, node: NodeId) -> Session | None:
        """The one that has the node; others may live that have lost it and do not know."""
        number = self.link_of.get(node)
        return None if number is None else self.sessions.get(number)

    # what arrives

    def arrive(self, wire: Wire, text: str) -> None:
        message = codec.decode(text)
        session = self.sessions.get(wire.number)
        if isinstance(message, messages.Hello):
            self._hello(wire, message)
        elif session is not None:
            self.recheck(session)  # the reader waits for it
            self._handle(session, message)
            session.flush()

    def _hello(self, wire: Wire, hello: messages.Hello) -> None:
        start, dial = self.dial_of.get(wire.node, ("", 0))
        if start == hello.agent_start_id and hello.dial < dial:
            wire.closed = True  # overtaken
            return
        found = _sort(
            self.on_node(wire.node), {ref.assignment_id: ref for ref in map(ref_of, hello.held)}, hello.spool_id
        )
        self.link_of[wire.node], self.spool_of[wire.node] = wire.number, hello.spool_id
        self.dial_of[wire.node] = (hello.agent_start_id, hello.dial)
        self._note()
        resend = tuple(self._held(a) for a in found.resend)
        link_id = LinkId(UUID(int=wire.number))
        takeover = Takeover(link_id, tuple(found.keep), tuple(found.kill), resend, tuple(found.occupied))
        send, sent = trio.open_memory_channel[object](10_000)
        link = self._make_link("n", wire.node, hello.spool_id, takeover, hello.slots, settings_of(wire.node), send)
        session = self.sessions[wire.number] = Session(wire, link, sent)
        welcome = messages.Welcome(
            link_id=link_id, heartbeat_interval=1, keep=tuple(map(wire_ref, found.keep)),
            kill=tuple(map(wire_ref, found.kill)), drain_state="none", config_version="", oldest_agent_version="0",
        )  # fmt: skip
        wire.down.append(codec.encode(welcome))
        self._give(session, resend)

    def _handle(self, session: Session, message: messages.Message) -> None:
        link, at = session.link, now()
        match message:
            case messages.JobsStarted() | messages.JobsOutput() | messages.JobsFinished():
                told = list(facts(message, at))
                if any(isinstance(fact, Finished) and fact.outcome is Outcome.HANDED_BACK for _, fact in told):
                    link.note_rejection("draining")
                self._tell(session, told)
            case messages.JobsAccepted():
                self._tell(session, [(None, Accepted(ref_of(ref), at)) for ref in message.jobs])
            case messages.JobsRejected():
                for entry in message.jobs:
                    busy = entry.reason == "busy" and session.wire.node not in self.unanswered
                    assert not busy, "a node was sent more than it has room for"
                    link.note_rejection(entry.reason)
                self._tell(session, [(None, Rejected(ref_of(e), at, e.reason)) for e in message.jobs])
            case messages.Heartbeat():
                link.send(messages.Heartbeat())
                silence = link.heartbeat(message)
                self._tell(session, [(None, Accepted(ref, at)) for ref in silence.accepted])
                self._tell(session, [(None, NotListed(ref, at)) for ref in silence.gone])
                session.to_resend = silence.resend

    def _tell(self, session: Session, entries: Entries) -> None:
        for _, fact in entries:
            if fact is not None:
                session.link.heard_of(fact.ref)
        session.backlog += entries

    # what is committed

    def recheck(self, session: Session) -> None:
        wanted, session.to_resend = session.to_resend, ()
        if wanted and self.link_of.get(session.wire.node) == session.wire.number:
            self._give(session, [self._held(a) for a in wanted if self.may_be_sent_again(self.rows[a])])

    def may_be_sent_again(self, row: AttemptRow) -> bool:
        return row.is_open and row.accepted_at is None

    def commit(self, session: Session, most: int) -> None:
        """The next of what a link has told."""
        entries, session.backlog = session.backlog[:most], session.backlog[most:]
        if not entries:
            return
        node, number = session.wire.node, session.wire.number
        if self.link_of.get(node) != number:
            self.close(session)
            return
        ledger = Ledger({a: row for a, row in self.rows.items() if row.node_id == node})
        known = tuple(fact for _, fact in entries if fact is not None)
        judged = _judge(Report(node, session.link.link_id, known), ledger, [], [])
        for chunk in ledger.chunks:
            assert chunk.offset == len(self.output[chunk.row.assignment_id]), "stored with a hole or twice"
            self.output[chunk.row.assignment_id] += chunk.data
        self._note()
        session.link.committed(judged)
        position = _settled_position(entries, judged.settled)
        if position is not None:
            session.link.send(messages.Ack(spool_id=self.spool_of[node], position=position + 1))
        session.flush()
        if judged.gap is not None:
            self.close(session)

    def close(self, session: Session) -> None:
        """The link ends at this end; the lease runs on."""
        self.sessions.pop(session.wire.number, None)
        session.wire.closed = True
        if self.link_of.get(session.wire.node) == session.wire.number:
            self.link_of[session.wire.node] = None

    def claim(self, node: NodeId, *, answered: bool = True) -> None:
        """Without an answer to its commit the control-plane does not know, until it compares with the rows."""
        queued = next((job for job in self.jobs.values() if job.status is JobStatus.QUEUED), None)
        session = self.session_of(node)
        if queued is None or session is None or session.link.open() is None:
            return
        queued.attempt += 1
        queued.status = JobStatus.ASSIGNED
        assignment = AssignmentId(UUID(int=100_000 + len(self.rows)))
        self.rows[assignment] = AttemptRow(
            queued.id, queued.attempt, assignment, node, self.spool_of[node], 60.0, None, None, None, None, None, None,
            None, 0, 0, False, False, None, None, None, None, None, queued,
        )  # fmt: skip
        self.output[assignment] = b""
        if answered:
            self._give(session, [self._held(assignment)])
        else:
            self.unanswered.add(node)

    def _held(self, assignment: AssignmentId) -> Held:
        row = self.rows[assignment]
        return Held(row.job_id, row.attempt, assignment, row.job.task_id, SPEC, row.timeout_seconds)

    def _give(self, session: Session, jobs: Sequence[Held]) -> None:
        for job in jobs:
            if job.assignment_id not in self._given and not self.rows[job.assignment_id].is_open:
                self.sent_late.add(job.assignment_id)
            self._given.add(job.assignment_id)
        session.link.give(jobs)
        session.flush()

    def end_lease(self, node: NodeId) -> None:
        self.link_of[node] = None
        for row in self.on_node(node).values():
            self.fenced.add(row.assignment_id)
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

    # the loop that compares links with rows

    def look(self, session: Session) -> None:
        rows = [occupied(row) for row in self.on_node(session.wire.node).values()]
        session.read = rows, trio.current_time()

    def compare(self, session: Session) -> None:
        if session.read is not None:
            rows, read_at = session.read
            session.read = None
            if session.link.made_at <= read_at:
                held = session.link.compare(rows, read_at)
                session.link.stop([(row.ref, row.stop_reason) for row in held if row.stop_reason])
                session.flush()

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


def occupied(row: AttemptRow) -> Occupied:
    asked = not row.is_open and row.stop_requested_at is not None
    return Occupied(
        Ref(row.job_id, row.attempt, row.assignment_id),
        row.timeout_seconds,
        row.accepted_at is not None,
        row.started_at is not None,
        not row.is_open,
        "canceled" if asked else "",
    )


def settings_of(node: NodeId) -> NodeSettings:
    return NodeSettings(
        node, enabled=True, draining=False, config_version="", config_acked=True, config={}, max_timeout=None,
        ability=NodeAbility(), sandbox_allowed=True, tokens_valid_from=0,
    )  # fmt: skip


class MemorySpool:
    """`Spool` with a disk of memory: records in the same order and encoding, durable when `sync` returns."""

    def __init__(self, spool_id: str, disk: bytearray) -> None:
        self.spool_id = spool_id
        self._disk = disk
        self._salt = salt_of(spool_id)
        found = Found(spool_id, [Segment(Path("none"), 1, 0, -1)], [scan(bytes(disk), salt=self._salt)])
        assert not found.scans[0].damaged
        self.kept = Kept.of(found)
        self.acked = self.kept.acked
        self._position = self.kept.next_position
        self._entries = [entry for entry in found.scans[0].entries if entry.kind in REPORTS]
        self._ends = deque(sorted(self.kept.finished.values(), key=lambda item: item[0]))
        self._pending: list[tuple[Kind, SpoolRef, Callable[[], bytes], Ticket | None]] = []

    def take(self, refs: Sequence[SpoolRef]) -> Ticket:
        ticket = Ticket(len(refs))
        self._pending += [(Kind.TAKEN, ref, bytes, ticket) for ref in refs]
        return ticket

    def started(self, ref: SpoolRef, fields: bytes) -> None:
        self._pending.append((Kind.STARTED, ref, lambda: fields, None))

    def output(self, ref: SpoolRef, offset: int, data: bytes) -> None:
        self._pending.append((Kind.OUTPUT, ref, partial(encode_output, "stdout", offset, data), None))

    def finished(self, ref: SpoolRef, fields: Callable[[], bytes]) -> None:
        self._pending.append((Kind.FINISHED, ref, fields, None))

    def sync(self) -> None:
        """One batch becomes durable."""
        batch, self._pending = sorted(self._pending, key=lambda item: item[0]), []
        for kind, ref, fields, ticket in batch:
            entry = Entry(kind, self._position, 0.0, ref, fields())
            self._disk += encode(entry, base=len(self._disk), salt=self._salt)
            if kind in REPORTS:
                self._entries.append(entry)
                self._position += 1
            if kind is Kind.FINISHED:
                self._ends.append((entry.position, ref))
            if ticket is not None:
                ticket.settle(ref, refused=False)

    def acknowledge(self, position: int) -> list[SpoolRef]:
        assert position <= self._position, "acknowledged what was never written"
        self.acked = max(self.acked, position)
        over = []
        while self._ends and self._ends[0][0] < self.acked:
            over.append(self._ends.popleft()[1])
        return over

    def reports(self, position: int, most: int) -> list[Entry]:
        return [entry for entry in self._entries if entry.position >= position][:most]


class Node:
    """`make_runner` stands for the rules of the node."""

    def __init__(self, node: NodeId, make_runner: Callable[..., Runner] = Runner) -> None:
        self.id = node
        self.started: Counter[AssignmentId] = Counter()
        self.printed: dict[AssignmentId, bytes] = {}
        self.wire: Wire | None = None
        self._make_runner = make_runner
        self._spool_id = f"{node.int:032x}"
        clock = Entry(Kind.CLOCK, 0, 0.0, NOBODY, encode_clock("boot", 0.0))
        self._disk = bytearray(encode(clock, base=0, salt=salt_of(self._spool_id)))
        self._starts = 0
        self.restart()

    def restart(self) -> None:
        """Killed and started again: what earlier runs left is ended, then reported lost."""
        self.wire = None
        self._starts += 1
        self._dials = 0
        self.spool = MemorySpool(self._spool_id, self._disk)
        self.outbox = Outbox(Bell())
        self.runner = self._make_runner(
            CONFIG, cast(Spool, self.spool), self.outbox, "state", Path("none"), _nothing_to_remove
        )
        self.runner.offered = {"noop": NoopRuntime()}
        self._taking: list[tuple[Ticket, list[Attempt]]] = []
        self._beat_unanswered = self._sync_due = False
        report_lost(cast(Spool, self.spool), self.runner.attempts)

    @property
    def attempts(self) -> Iterator[Attempt]:
        return iter(self.runner.attempts)

    @property
    def is_idle(self) -> bool:
        return not any(self.attempts)

    # the link

    def dial(self, wire: Wire) -> None:
        """The old link is closed first."""
        self.hang_up()
        self._dials += 1
        self.wire = wire
        hello = messages.Hello(
            protocol_version=1, node_slug="n", agent_version="0.1.0", agent_start_id=str(self._starts),
            spool_id=self.spool.spool_id, dial=self._dials, slots=SLOTS, held=self.runner.held(), capability_hash="",
        )  # fmt: skip
        wire.up.append(codec.encode(hello))

    def hang_up(self) -> None:
        self.wire = None
        self._beat_unanswered = self._sync_due = False
        self.outbox.close()
        self.runner.link_ended()

    def read(self, text: str) -> None:
        match message := codec.decode(text):
            case messages.Welcome():
                self.runner.linked(draining=False, kill=message.kill)
                self.outbox.open()
                self._sent = self.spool.acked
            case messages.JobsAssign():
                self.runner.assign(message.jobs)
            case messages.JobsCancel():
                self.runner.cancel(message.jobs)
            case messages.Ack():
                self.runner.acknowledged(self.spool.acknowledge(message.position))
            case messages.Heartbeat():
                self._beat_unanswered, self._sync_due = False, True
        self._say()

    def beat(self) -> None:
        """Never before the last one was answered, and what came before that answer was synced: a link that is slower
        than a heartbeat is closed, and so is the disk's."""
        if not self.outbox.linked or self._beat_unanswered:
            return
        if self._sync_due:
            self.sync()
        held, free = self.runner.held(), self.runner.free_slots()
        self.outbox.post(messages.Heartbeat(held=held, free_slots=free, load=0.0))
        self._beat_unanswered, self._sync_due = True, False
        self._say()

    def send(self, most: int) -> None:
        """The next reports, in the bytes of the wire."""
        if self.wire is None or not self.outbox.linked:
            return
        waiting = self.spool.reports(self._sent, most)
        self.wire.up += [text for _, text in frames([(entry, 0.0) for entry in waiting])]
        if waiting:
            self._sent = waiting[-1].position + 1

    def _say(self) -> None:
        while self.wire is not None and (message := self.outbox.take()) is not None:
            self.wire.up.append(codec.encode(message))

    # the runner's children

    def take(self) -> None:
        """What has come is given to the spool."""
        batch, self.runner._to_take = self.runner._to_take, []
        if batch:
            self._taking.append((self.spool.take([attempt.ref for attempt in batch]), batch))

    def sync(self) -> None:
        self.take()
        self.spool.sync()
        taken, self._taking = self._taking, []
        for _, batch in taken:
            self.runner._taken(batch)
        self._say()

    def run(self, attempt: Attempt) -> None:
        attempt.stage = Stage.RUNNING
        self.started[AssignmentId(attempt.assignment_id)] += 1
        self.spool.started(attempt.ref, started_fields("noop"))

    def print(self, attempt: Attempt, data: bytes) -> None:
        assignment = AssignmentId(attempt.assignment_id)
        self.spool.output(attempt.ref, attempt.sent["stdout"], data)
        attempt.sent["stdout"] += len(data)
        self.printed[assignment] = self.printed.get(assignment, b"") + data

    def end(self, attempt: Attempt) -> None:
        """As it was asked to, or by itself."""
        if (asked := attempt.stop.outcome) is not None:
            self.runner._finish(attempt, Ending(asked))
        else:
            self.runner._finish(attempt, Ending("completed", exit_code=0))


async def _nothing_to_remove(_: Path) -> bool:
    return True
