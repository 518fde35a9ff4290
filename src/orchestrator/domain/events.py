"""The events of a task, told in one order from its rows; a cursor says how far somebody has been told.

There is no table of events. A `Teller` is shown the task's history whenever it changed, and says what comes next: an
event, output that it has to be given first, or nothing yet. Its `Told` is the whole of its memory, so that another one
that starts from it goes on without loss or repeat.

    status queued · status running · for each job, for each attempt that started: job running, its output, job <what
    became of the job> · for a job that ends in another way: job <how> · status <how> · end
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.domain.cursors import JobTold, Phase, Told, encode_cursor
from orchestrator.domain.history import STREAMS, AttemptHistory, Chunk, History, JobHistory, OutputPage, Stream
from orchestrator.domain.ids import JobId
from orchestrator.domain.results import split_text
from orchestrator.domain.tasks import show_status

MOST_TEXT = 32 << 10
"""Bytes of output in one event, unless one chunk holds more."""


@dataclass(frozen=True, slots=True)
class Event:
    kind: str
    data: dict[str, Any]
    cursor: str
    """That of somebody who has been told everything up to and with this event."""


@dataclass(frozen=True, slots=True)
class ReadOutput:
    """The teller needs the chunks that end after these offsets: `stored` bytes were known when it asked."""

    job_id: JobId
    attempt: int
    offsets: tuple[int, int]
    stored: tuple[int, int]
    ended: bool

    def repeats(self, read: "ReadOutput | None") -> bool:
        """Nothing has come since `read`: what is left is half a character, or was dropped."""
        return read is not None and (read.attempt, read.stored, read.ended) == (self.attempt, self.stored, self.ended)


class Teller:
    def __init__(self, history: History, told: Told | None = None) -> None:
        self._history = history
        self._told = told if told and _fits(told, history) else Told(history.task_id)
        self._read: dict[JobId, ReadOutput] = {}

    @property
    def over(self) -> bool:
        return self._told.over

    def look(self, history: History) -> None:
        self._history = history

    def next(self) -> Event | ReadOutput | None:
        """None: wait until the history has changed, or `over`."""
        return self._next_of_start() or self._next_of_jobs() or self._next_of_end()

    def give(self, asked: ReadOutput, page: OutputPage) -> Iterator[Event]:
        """Consume it whole: each event moves the teller on."""
        yield from self._tell_chunks(asked, page)
        if page.more:
            return
        if asked.ended:
            yield from self._tell_tails(asked)
        self._read[asked.job_id] = asked

    def _next_of_start(self) -> Event | None:
        if self._told.status == "":
            return self._tell_status("queued")
        if self._told.status == "queued" and self._history.has_started:
            return self._tell_status("running")
        return None

    def _next_of_jobs(self) -> Event | ReadOutput | None:
        for job in self._history.jobs:
            step = self._next_of_job(job)
            if step is not None:
                return step
        return None

    def _next_of_end(self) -> Event | None:
        status = self._history.status
        if not status.is_closed or self._told.over or any(not job.ended for job in self._history.jobs):
            return None
        shown = show_status(status)
        if self._told.status != shown:
            return self._tell_status(shown)
        self._told = replace(self._told, over=True)
        return self._event("end", {"status": shown})

    def _next_of_job(self, job: JobHistory) -> Event | ReadOutput | None:
        told = self._told.job(job.id)
        if told.phase is Phase.OVER:
            return None
        if told.phase is Phase.RUNNING:
            return self._next_of_attempt(job, told)
        attempt = next((one for one in job.started if one.attempt > told.attempt), None)
        if attempt:
            now = JobTold(attempt.attempt, Phase.RUNNING)
            return self._tell_job(job.id, now, "running", attempt.node_slug)
        if job.ended:
            return self._tell_job(job.id, JobTold(job.attempt, Phase.OVER), job.shown)
        return None

    def _next_of_attempt(self, job: JobHistory, told: JobTold) -> Event | ReadOutput | None:
        attempt = next(one for one in job.attempts if one.attempt == told.attempt)
        ended = attempt.ended_at is not None
        asks = ReadOutput(job.id, told.attempt, told.offsets, attempt.lengths, ended)
        if attempt.lengths != told.offsets and not asks.repeats(self._read.get(job.id)):
            return asks
        if not ended:
            return None
        if job.ended and not any(one.attempt > told.attempt for one in job.attempts):
            return self._tell_job(job.id, replace(told, phase=Phase.OVER), job.shown, attempt.node_slug)
        return self._tell_job(job.id, replace(told, phase=Phase.ENDED), "queued", attempt.node_slug)

    def _tell_chunks(self, asked: ReadOutput, page: OutputPage) -> Iterator[Event]:
        held = _Held(asked.offsets)
        for chunk in page.chunks:
            if held.must_go_before(chunk):
                yield from self._tell_text(asked, held.take())
            held.add(chunk)
        yield from self._tell_text(asked, held.take())

    def _tell_text(self, asked: ReadOutput, run: "_Run | None") -> Iterator[Event]:
        if run is None:
            return
        text, used = split_text(run.data)
        if text:
            yield self._tell_output(asked.job_id, run.stream, run.offset, text, run.offset + used)

    def _tell_tails(self, asked: ReadOutput) -> Iterator[Event]:
        """Half a character with which the output ended; where more was dropped, it is no fault and is left out."""
        attempt = self._attempt(asked)
        for stream, stored in zip(STREAMS, asked.stored, strict=True):
            offset = self._told.job(asked.job_id).offset(stream)
            if offset < stored and not attempt.truncated(stream):
                yield self._tell_output(asked.job_id, stream, offset, "\ufffd", stored)

    def _attempt(self, asked: ReadOutput) -> AttemptHistory:
        job = next(job for job in self._history.jobs if job.id == asked.job_id)
        return next(one for one in job.attempts if one.attempt == asked.attempt)

    def _tell_status(self, status: str) -> Event:
        self._told = replace(self._told, status=status)
        return self._event("status", {"status": status})

    def _tell_job(self, job_id: JobId, now: JobTold, status: str, node_slug: str | None = None) -> Event:
        self._told = self._told.with_job(job_id, now)
        data = {"job_id": str(job_id), "attempt": now.attempt, "status": status}
        return self._event("job", data | ({"node_slug": node_slug} if node_slug else {}))

    def _tell_output(self, job_id: JobId, stream: Stream, offset: int, text: str, upto: int) -> Event:
        told = self._told.job(job_id)
        self._told = self._told.with_job(job_id, told.read_upto(stream, upto))
        data = {"job_id": str(job_id), "attempt": told.attempt, "stream": stream, "offset": offset, "text": text}
        return self._event("output", data)

    def _event(self, kind: str, data: dict[str, Any]) -> Event:
        return Event(kind, data, encode_cursor(self._told))


def _fits(told: Told, history: History) -> bool:
    """A cursor of another time or hand may name what never was; it then counts as unknown."""
    jobs = {job.id: job for job in history.jobs}
    for job_id, job in told.jobs.items():
        known = jobs.get(job_id)
        if known is None or job.attempt > known.attempt or (job.phase is Phase.OVER and not known.ended):
            return False
        if job.phase is Phase.RUNNING and all(one.attempt != job.attempt for one in known.started):
            return False
    return history.status.is_closed or not told.over


@dataclass(frozen=True, slots=True)
class _Run:
    stream: Stream
    offset: int
    data: bytes


class _Held:
    """Joins neighbouring chunks of one stream; what each stream was cut off at goes before its next run."""

    def __init__(self, offsets: tuple[int, int]) -> None:
        self._upto: dict[Stream, int] = dict(zip(STREAMS, offsets, strict=True))
        self._tail: dict[Stream, bytes] = dict.fromkeys(STREAMS, b"")
        self._stream: Stream = "stdout"
        self._data = bytearray()

    def must_go_before(self, chunk: Chunk) -> bool:
        other = chunk.stream != self._stream or chunk.byte_offset > self._upto[chunk.stream]
        return bool(self._data) and (other or len(self._data) + len(chunk.data) > MOST_TEXT)

    def add(self, chunk: Chunk) -> None:
        upto = self._upto[chunk.stream]
        if chunk.end <= upto:
            return
        if chunk.byte_offset > upto:
            self._tail[chunk.stream] = b""
        if not self._data:
            self._stream = chunk.stream
            self._data += self._tail[chunk.stream]
        self._data += chunk.data[max(0, upto - chunk.byte_offset) :]
        self._upto[chunk.stream] = chunk.end

    def take(self) -> _Run | None:
        if not self._data:
            return None
        data, stream = bytes(self._data), self._stream
        self._data.clear()
        _, used = split_text(data)
        self._tail[stream] = data[used:]
        return _Run(stream, self._upto[stream] - len(data), data)
