"""One live link: what its node holds, how much room it has, and what silence about an attempt means. No I/O."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import trio

from node_link.codec import Encoded
from node_link.messages import Heartbeat, JobsCancel, Message
from node_link.session import CloseCode
from orchestrator.app.dispatch import Open
from orchestrator.app.links import NodeSettings, Occupied, Takeover
from orchestrator.app.reports import LASTING_REFUSALS, AttemptState, Judged
from orchestrator.domain.dispatch import Held
from orchestrator.domain.ids import AssignmentId, LinkId, NodeId
from orchestrator.domain.reports import Ref
from orchestrator.domain.states import Outcome
from orchestrator.links.close import LinkClose
from orchestrator.links.wire import assign_frames, cancel_frames

SILENT_HEARTBEATS = 2
OVERDUE_SECONDS = 60.0
UNSTARTED_SECONDS = 660.0
GRACE_SECONDS = 10.0


@dataclass(slots=True)
class Tracked:
    """An attempt that holds a slot of this node."""

    ref: Ref
    timeout_seconds: float
    since: float
    """Monotonic: when it was last known to have moved on (sent, accepted, started)."""
    answered: bool = False
    accepted: bool = False
    started: bool = False
    stopping: bool = False
    silent: int = 0
    stop_sent: str | None = None
    overdue_told: bool = False
    killed: bool = False
    """Its row is long over, and the welcome told the node to end it: the node alone says when nothing of it is left."""


@dataclass(frozen=True, slots=True)
class Silence:
    """What two heartbeats without an attempt mean for it."""

    resend: tuple[AssignmentId, ...]
    gone: tuple[Ref, ...]
    accepted: tuple[Ref, ...]
    """Named for the first time: that counts as accepting."""


class Sends(Protocol):
    def send_nowait(self, message: Message | Encoded) -> None:
        """Raises trio.WouldBlock when too much waits, and trio.ClosedResourceError when nothing is sent any more."""


class NodeLink:
    def __init__(
        self,
        slug: str,
        node_id: NodeId,
        spool_id: str,
        takeover: Takeover,
        room: int,
        settings: NodeSettings,
        outbox: Sends,
    ) -> None:
        self.slug = slug
        self.node_id = node_id
        self.spool_id = spool_id
        self.link_id: LinkId = takeover.link_id
        self.settings = settings
        self._room = room
        self._outbox = outbox
        self._reported_room: int | None = None
        self._full = False
        self._refuses_until_hello = False
        self._refusing = 0
        self.config_sent = ""
        self.closing: LinkClose | None = None
        self.on_close: Callable[[], None] = lambda: None
        """Called once, when the link is to be closed."""
        self.empty = trio.Event()
        self.attempts: dict[AssignmentId, Tracked] = {}
        self._left: dict[AssignmentId, float] = {}
        """When those that have stopped since the last comparison did so."""
        self.made_at = trio.current_time()
        for one in takeover.occupied:
            self._track(one)
        for ref in takeover.kill:
            if ref.assignment_id not in self.attempts:
                self.attempts[ref.assignment_id] = Tracked(
                    ref, 0, self.made_at, answered=True, accepted=True, started=True, stopping=True, killed=True
                )
        self._note_emptiness()

    def _track(self, one: Occupied) -> None:
        self.attempts[one.ref.assignment_id] = Tracked(
            one.ref,
            one.timeout_seconds,
            trio.current_time(),
            answered=one.accepted,
            accepted=one.accepted,
            started=one.started,
            stopping=one.stopping,
        )

    def compare(self, rows: Sequence[Occupied], read_at: float) -> list[Occupied]:
        """Takes over what the rows said at `read_at`; answers them without those that have stopped since."""
        self._left = {assignment: at for assignment, at in self._left.items() if at >= read_at}
        rows = [row for row in rows if row.ref.assignment_id not in self._left]
        known = {row.ref.assignment_id for row in rows}
        gone = [
            a
            for a, tracked in self.attempts.items()
            if a not in known and tracked.since < read_at and not tracked.killed
        ]
        for assignment in gone:
            del self.attempts[assignment]
        for row in rows:
            if row.ref.assignment_id not in self.attempts:
                self._track(row)
        self._note_emptiness()
        return rows

    # ------------------------------------------------------------ sending

    def send(self, message: Message | Encoded) -> None:
        """Puts it into the outbox; a node that reads too slowly for that loses its link, and nobody waits for it."""
        try:
            self._outbox.send_nowait(message)
        except trio.WouldBlock:
            self.close(LinkClose(CloseCode.TRY_ANOTHER, "you do not read what is sent to you"))
        except trio.ClosedResourceError:
            pass  # it is closing already; what was to be said is settled by the next hello

    def close(self, why: LinkClose) -> None:
        if self.closing is None:
            self.closing = why
            self.on_close()

    def give(self, jobs: Iterable[Held]) -> None:
        """Sends assignments that were committed; a resent one begins its silence anew."""
        given = list(jobs)
        for job in given:
            ref = Ref(job.job_id, job.attempt, job.assignment_id)
            self.attempts[job.assignment_id] = Tracked(ref, job.timeout_seconds, trio.current_time())
        self._note_emptiness()
        for frame in assign_frames(given):
            self.send(frame)

    def stop(self, refs: Iterable[tuple[Ref, str]], grace: float = GRACE_SECONDS) -> None:
        """Asks the node to stop these, once a link for each reason."""
        fresh: list[tuple[Ref, str]] = []
        for ref, reason in refs:
            tracked = self.attempts.get(ref.assignment_id)
            if tracked is None:
                tracked = self.attempts[ref.assignment_id] = Tracked(ref, 0, trio.current_time())
            if reason != "recall":
                tracked.stopping = True
            if tracked.stop_sent != reason:
                tracked.stop_sent = reason
                tracked.silent = 0
                fresh.append((ref, reason))
        self._note_emptiness()
        for frame in cancel_frames(fresh, grace):
            self.send(JobsCancel(jobs=frame))

    # ------------------------------------------------------------ room

    def open(self) -> Open | None:
        """What a claim may give this node now, None when nothing."""
        if self._full or self._refusing or self._refuses_until_hello or self.closing or not self.settings.takes_work:
            return None
        room = self._room if self._reported_room is None else min(self._room, self._reported_room)
        free = room - len(self.attempts)
        if free <= 0:
            return None
        ability, limit = self.settings.ability, self.settings.max_timeout
        return Open(self.node_id, self.link_id, self.spool_id, self.slug, free, ability, limit)

    def room_now(self) -> int:
        found = self.open()
        return 0 if found is None else found.free

    def note_rejection(self, reason: str) -> None:
        if reason == "busy":
            self._full = True
        if reason == "draining":
            self._refuses_until_hello = True
        if reason in LASTING_REFUSALS:
            self._refusing += 1

    def refusals_committed(self, count: int) -> None:
        """What it refused is known to the next claim; before that it gets nothing, else it would get the same again."""
        self._refusing -= count

    def undrained(self) -> None:
        self._refuses_until_hello = False
        self._reported_room = None  # it said none while it drained

    def unstarted(self) -> list[Ref]:
        return [t.ref for t in self.attempts.values() if not (t.started or t.stopping)]

    # ------------------------------------------------------------ what the node says

    def heard_of(self, ref: Ref) -> None:
        """The node has answered about it; whether that is committed is another matter."""
        tracked = self.attempts.get(ref.assignment_id)
        if tracked is not None:
            tracked.answered = True
            tracked.silent = 0

    def heartbeat(self, beat: Heartbeat) -> Silence:
        listed = {AssignmentId(h.assignment_id): h for h in beat.held}
        self._full = False
        if beat.free_slots is not None:
            known = sum(1 for assignment in self.attempts if assignment in listed)
            self._reported_room = max(0, beat.free_slots) + known
            if beat.free_slots > 0 and not self.settings.draining:
                self._refuses_until_hello = False  # a rejection that crossed the end of the drain
        resend: list[AssignmentId] = []
        gone: list[Ref] = []
        accepted: list[Ref] = []
        for assignment, tracked in self.attempts.items():
            if assignment in listed:
                tracked.answered, tracked.silent = True, 0
                if not tracked.accepted:
                    accepted.append(tracked.ref)
                continue
            tracked.silent += 1
            if tracked.silent < SILENT_HEARTBEATS:
                continue
            if tracked.accepted or tracked.stopping:
                gone.append(tracked.ref)
            elif not tracked.answered:
                tracked.silent = 0
                resend.append(assignment)
        return Silence(tuple(resend), tuple(gone), tuple(accepted))

    def committed(self, judged: Judged) -> bool:
        """Takes over what the database now says; True when that made room."""
        before = len(self.attempts)
        for assignment, state in judged.states.items():
            self._settle(assignment, state)
        for assignment in judged.gone:
            self.attempts.pop(assignment, None)
        if judged.refused:  # at once: the next claim must not give it back what it has just refused
            ability = replace(self.settings.ability, refused=self.settings.ability.refused | judged.refused)
            self.settings = replace(self.settings, ability=ability)
        self._note_emptiness()
        return len(self.attempts) < before

    def _settle(self, assignment: AssignmentId, state: AttemptState) -> None:
        if state.stopped:
            self.attempts.pop(assignment, None)
            self._left[assignment] = trio.current_time()
            return
        tracked = self.attempts.get(assignment)
        if tracked is None:
            return
        if (state.accepted and not tracked.accepted) or (state.started and not tracked.started):
            tracked.since = trio.current_time()
        tracked.accepted, tracked.started, tracked.stopping = state.accepted, state.started, state.ended

    def overdue(self) -> list[tuple[Ref, Outcome, str]]:
        """Attempts that the node should long have ended: the server's own net."""
        found: list[tuple[Ref, Outcome, str]] = []
        for tracked in self.attempts.values():
            if tracked.stopping or tracked.overdue_told:
                continue
            age = trio.current_time() - tracked.since
            if tracked.started and age > tracked.timeout_seconds + OVERDUE_SECONDS:
                found.append((tracked.ref, Outcome.TIMEOUT, "timeout"))
            elif tracked.accepted and not tracked.started and age > UNSTARTED_SECONDS:
                found.append((tracked.ref, Outcome.FAILED, "sandbox_start: not started for 660 s"))
        for ref, _, _ in found:
            self.attempts[ref.assignment_id].overdue_told = True
        return found

    def _note_emptiness(self) -> None:
        if not self.attempts:
            self.empty.set()
        elif self.empty.is_set():
            self.empty = trio.Event()
