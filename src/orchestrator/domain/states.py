"""Every state machine of tasks, jobs and leases, as one table. What the table does not list is illegal."""

from enum import StrEnum
from typing import TypeVar


class TaskStatus(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"
    SUPERSEDED = "superseded"

    @property
    def is_closed(self) -> bool:
        return self not in (TaskStatus.PENDING, TaskStatus.RUNNING)


class JobStatus(StrEnum):
    QUEUED = "queued"
    ASSIGNED = "assigned"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def is_ended(self) -> bool:
        return self in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELED)


class LeaseState(StrEnum):
    FREE = "free"
    HELD = "held"
    EXPIRED = "expired"


class Outcome(StrEnum):
    """How an attempt ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CANCELED = "canceled"
    LOST = "lost"
    HANDED_BACK = "handed_back"
    REJECTED = "rejected"


class Event(StrEnum):
    """What moves a machine on."""

    JOB_STARTED = "a job started"
    ALL_COMPLETED = "the last job ended, none failed"
    SOME_FAILED = "the last job ended, one failed"
    CANCEL = "canceled"
    SUPERSEDE = "replaced"

    CLAIM = "claimed"
    STARTED = "started"
    QUEUE_AGAIN = "queued again"
    COMPLETE = "completed"
    FAIL = "failed"

    HELLO = "hello committed"
    HEARTBEAT = "heartbeat committed"
    LINK_CLOSED = "link closed"
    EXPIRE = "same counter for a whole lease"
    RELEASE = "disabled or revoked"


_T, _J, _L, _E = TaskStatus, JobStatus, LeaseState, Event

ROWS: tuple[tuple[StrEnum, Event, StrEnum], ...] = (
    (_T.PENDING, _E.JOB_STARTED, _T.RUNNING),
    (_T.RUNNING, _E.JOB_STARTED, _T.RUNNING),
    (_T.PENDING, _E.SOME_FAILED, _T.FAILED),
    (_T.RUNNING, _E.SOME_FAILED, _T.FAILED),
    (_T.RUNNING, _E.ALL_COMPLETED, _T.COMPLETED),
    (_T.PENDING, _E.CANCEL, _T.CANCELED),
    (_T.RUNNING, _E.CANCEL, _T.CANCELED),
    (_T.PENDING, _E.SUPERSEDE, _T.SUPERSEDED),
    (_T.RUNNING, _E.SUPERSEDE, _T.SUPERSEDED),
    (_J.QUEUED, _E.CLAIM, _J.ASSIGNED),
    (_J.ASSIGNED, _E.STARTED, _J.RUNNING),
    (_J.ASSIGNED, _E.QUEUE_AGAIN, _J.QUEUED),
    (_J.RUNNING, _E.QUEUE_AGAIN, _J.QUEUED),
    (_J.RUNNING, _E.COMPLETE, _J.COMPLETED),
    (_J.QUEUED, _E.FAIL, _J.FAILED),
    (_J.ASSIGNED, _E.FAIL, _J.FAILED),
    (_J.RUNNING, _E.FAIL, _J.FAILED),
    (_J.QUEUED, _E.CANCEL, _J.CANCELED),
    (_J.ASSIGNED, _E.CANCEL, _J.CANCELED),
    (_J.RUNNING, _E.CANCEL, _J.CANCELED),
    (_L.FREE, _E.HELLO, _L.HELD),
    (_L.HELD, _E.HELLO, _L.HELD),
    (_L.EXPIRED, _E.HELLO, _L.HELD),
    (_L.HELD, _E.HEARTBEAT, _L.HELD),
    (_L.HELD, _E.LINK_CLOSED, _L.HELD),
    (_L.HELD, _E.EXPIRE, _L.EXPIRED),
    (_L.HELD, _E.RELEASE, _L.FREE),
)
# Two machines share words, and equal words are equal keys: so the machine is part of the key.
TABLE = {(type(state), state, event): after for state, event, after in ROWS}

State = TypeVar("State", TaskStatus, JobStatus, LeaseState)


class IllegalTransition(Exception):
    """A bug of ours: whoever steps a machine has checked that it may."""


def step(state: State, event: Event) -> State:
    """The state after `event`. Raises IllegalTransition where the table has no such row."""
    after = TABLE.get((type(state), state, event))
    if not isinstance(after, type(state)):
        raise IllegalTransition(f"{type(state).__name__} {state}: {event}")
    return after
