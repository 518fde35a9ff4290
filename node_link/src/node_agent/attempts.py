"""The attempts that this node holds, and until the link ends those that it will never start. No I/O."""

from collections.abc import Iterator
from enum import IntEnum
from uuid import UUID

from node_agent.choose import Chosen
from node_agent.sandbox.runtime import Stop
from node_agent.sandbox.spec import Ending, Outcome
from node_agent.spool_format import STREAMS, Ref
from node_link.messages import AttemptRef, HeldAttempt, RejectReason

MOST_SETTLED = 100_000


class Stage(IntEnum):
    TAKING = 0
    """Not yet durable: named to nobody, since naming it accepts it."""
    TAKEN = 1
    """Accepted; waits for a slot."""
    PREPARING = 2
    """Has a slot; nothing of the job was started."""
    STARTING = 3
    RUNNING = 4
    """`started` is reported."""
    FINISHED = 5
    """Its end is in the spool and not acknowledged."""


class Attempt:
    """One attempt from its assignment to the acknowledgement of its end."""

    __slots__ = ("_cut", "assignment_id", "chosen", "ref", "sent", "stage", "stop")

    def __init__(self, assignment_id: UUID, ref: Ref, chosen: Chosen | None, stage: Stage) -> None:
        self.assignment_id = assignment_id
        self.ref = ref
        self.chosen = chosen
        """None for an attempt of an earlier run of the agent."""
        self.stage = stage
        self.stop = Stop()
        self.sent = {"stdout": 0, "stderr": 0}
        """Bytes of each stream that are in the spool."""
        self._cut: set[str] = set()

    def cut(self, stream: str) -> None:
        """A piece of it was given up: what comes behind the hole is dropped."""
        self._cut.add(stream)

    def is_cut(self, stream: str) -> bool:
        return stream in self._cut

    def truncated(self, ending: Ending) -> dict[str, bool]:
        return {name: name in self._cut or bool(ending.truncated.get(name)) for name in STREAMS}  # type: ignore[call-overload]

    def early_outcome(self) -> Outcome | None:
        """What was asked before anything was started."""
        return self.stop.outcome

    def wire(self) -> AttemptRef:
        return AttemptRef.model_construct(
            job_id=UUID(bytes=self.ref.job_id), attempt=self.ref.attempt, assignment_id=self.assignment_id
        )

    def held(self) -> HeldAttempt:
        state = "finished" if self.stage is Stage.FINISHED else "running" if self.stage is Stage.RUNNING else "taken"
        return HeldAttempt.model_construct(
            job_id=UUID(bytes=self.ref.job_id),
            attempt=self.ref.attempt,
            assignment_id=self.assignment_id,
            state=state,
        )


class Attempts:
    def __init__(self) -> None:
        self._held: dict[UUID, Attempt] = {}
        self._open = 0
        self._settled: dict[UUID, RejectReason | None] = {}

    def __iter__(self) -> Iterator[Attempt]:
        return iter(list(self._held.values()))

    @property
    def open(self) -> int:
        """Those that are not finished."""
        return self._open

    @property
    def taking(self) -> int:
        """Those of the open ones that are not durable yet."""
        return sum(1 for attempt in self._held.values() if attempt.stage is Stage.TAKING)

    def get(self, assignment_id: UUID) -> Attempt | None:
        return self._held.get(assignment_id)

    def add(self, attempt: Attempt) -> None:
        self._held[attempt.assignment_id] = attempt
        self._open += attempt.stage is not Stage.FINISHED

    def finish(self, attempt: Attempt) -> None:
        attempt.stage = Stage.FINISHED
        self._open -= 1

    def forget(self, assignment_id: UUID) -> Attempt | None:
        """Its end was acknowledged, or it was never taken."""
        attempt = self._held.pop(assignment_id, None)
        if attempt is not None:
            self._open -= attempt.stage is not Stage.FINISHED
        return attempt

    def held(self) -> tuple[HeldAttempt, ...]:
        """What hello and heartbeat name."""
        return tuple(attempt.held() for attempt in self._held.values() if attempt.stage is not Stage.TAKING)

    def settle(self, assignment_id: UUID, reason: RejectReason | None) -> None:
        """It is never started as long as this link lasts; with None it had ended. The oldest of very many are
        forgotten: the server sends again only what it has not been answered."""
        self._settled.pop(assignment_id, None)
        self._settled[assignment_id] = reason
        if len(self._settled) > MOST_SETTLED:
            del self._settled[next(iter(self._settled))]

    def is_settled(self, assignment_id: UUID) -> bool:
        return assignment_id in self._settled

    def settled_reason(self, assignment_id: UUID) -> RejectReason | None:
        return self._settled.get(assignment_id)

    def link_ended(self) -> None:
        self._settled.clear()
