"""Opaque cursors: how far somebody was told a task's events, and where a list goes on."""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from types import MappingProxyType
from typing import Any
from uuid import UUID

from orchestrator.domain.history import Stream
from orchestrator.domain.ids import JobId, TaskId


class Phase(IntEnum):
    WAITING = 0
    RUNNING = 1
    ENDED = 2
    """The attempt has ended and its job went back to the queue."""
    OVER = 3
    """The job has ended."""


@dataclass(frozen=True, slots=True)
class JobTold:
    attempt: int = 0
    phase: Phase = Phase.WAITING
    offsets: tuple[int, int] = (0, 0)
    """Raw bytes of stdout and of stderr."""

    def offset(self, stream: Stream) -> int:
        return self.offsets[0 if stream == "stdout" else 1]

    def read_upto(self, stream: Stream, upto: int) -> "JobTold":
        stdout, stderr = self.offsets
        return replace(self, offsets=(upto, stderr) if stream == "stdout" else (stdout, upto))


@dataclass(frozen=True, slots=True)
class Told:
    task_id: TaskId
    status: str = ""
    over: bool = False
    jobs: Mapping[JobId, JobTold] = field(default_factory=lambda: MappingProxyType({}))

    def job(self, job_id: JobId) -> JobTold:
        return self.jobs.get(job_id, JobTold())

    def with_job(self, job_id: JobId, now: JobTold) -> "Told":
        return replace(self, jobs={**self.jobs, job_id: now})


def encode_cursor(told: Told) -> str:
    jobs = {job_id.hex: [job.attempt, job.phase.value, *job.offsets] for job_id, job in told.jobs.items()}
    return _pack([told.task_id.hex, told.status, int(told.over), jobs])


def decode_cursor(text: str, task_id: TaskId) -> Told | None:
    """None for one that we did not make, or made for another task."""
    try:
        task, status, over, jobs = _unpack(text)
        told = Told(TaskId(UUID(task)), _text(status), bool(over), {_job(key): _told(row) for key, row in jobs.items()})
    except (ValueError, TypeError, AttributeError):
        return None
    return told if told.task_id == task_id else None


def encode_position(last: UUID) -> str:
    return base64.urlsafe_b64encode(last.bytes).decode().rstrip("=")


def decode_position(text: str) -> UUID | None:
    try:
        return UUID(bytes=_bytes(text))
    except ValueError:
        return None


def _job(key: str) -> JobId:
    return JobId(UUID(key))


def _told(row: Any) -> JobTold:
    attempt, phase, stdout, stderr = row
    if any(type(number) is not int or not 0 <= number < 1 << 53 for number in (attempt, phase, stdout, stderr)):
        raise ValueError("no number of ours")
    return JobTold(attempt, Phase(phase), (stdout, stderr))


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError("no text")
    return value


def _pack(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).decode().rstrip("=")


def _unpack(text: str) -> Any:
    return json.loads(_bytes(text))


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError("no base64") from error
