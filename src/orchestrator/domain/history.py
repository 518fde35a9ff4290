"""What has happened to a task, as the rows say it: the base of its events, its results and its logs."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from orchestrator.domain.ids import JobId, TaskId, UserId
from orchestrator.domain.states import JobStatus, TaskStatus

Stream = Literal["stdout", "stderr"]
STREAMS: tuple[Stream, Stream] = ("stdout", "stderr")


@dataclass(frozen=True, slots=True)
class AttemptHistory:
    attempt: int
    node_slug: str
    runtime: str | None
    started_at: datetime | None
    ended_at: datetime | None
    outcome: str | None
    exit_code: int | None
    error: str | None
    stdout_length: int
    stderr_length: int
    stdout_truncated: bool
    stderr_truncated: bool

    @property
    def lengths(self) -> tuple[int, int]:
        return self.stdout_length, self.stderr_length

    def truncated(self, stream: Stream) -> bool:
        return self.stdout_truncated if stream == "stdout" else self.stderr_truncated


@dataclass(frozen=True, slots=True)
class JobHistory:
    id: JobId
    status: JobStatus
    attempt: int
    """The last one assigned; 0 before the first."""
    error: str | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    attempts: tuple[AttemptHistory, ...] = ()

    @property
    def ended(self) -> bool:
        return self.status.is_ended

    @property
    def shown(self) -> str:
        """A job that waits at a node is still queued to its owner."""
        return "queued" if self.status is JobStatus.ASSIGNED else self.status.value

    @property
    def started(self) -> Iterator[AttemptHistory]:
        return (attempt for attempt in self.attempts if attempt.started_at is not None)

    @property
    def last_started(self) -> AttemptHistory | None:
        return max(self.started, key=lambda attempt: attempt.attempt, default=None)


@dataclass(frozen=True, slots=True)
class History:
    """`jobs` are in the order of their ids, attempts in the order of their numbers."""

    task_id: TaskId
    owner: UserId
    status: TaskStatus
    jobs: tuple[JobHistory, ...]

    @property
    def has_started(self) -> bool:
        return self.status is TaskStatus.RUNNING or any(job.last_started is not None for job in self.jobs)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A stored piece of output. `seq` rises over both streams of an attempt in the order they were told."""

    stream: Stream
    byte_offset: int
    seq: int
    data: bytes

    @property
    def end(self) -> int:
        return self.byte_offset + len(self.data)


@dataclass(frozen=True, slots=True)
class OutputPage:
    """Chunks in `seq` order; `more` when there were others that did not fit."""

    chunks: tuple[Chunk, ...]
    more: bool
