"""The result document, and stored bytes as text."""

import codecs
import json
from typing import Any

from orchestrator.domain.history import AttemptHistory, JobHistory, Stream
from orchestrator.domain.ids import TaskId
from orchestrator.domain.states import JobStatus
from orchestrator.domain.times import rfc3339

VERSION = 1


def split_text(data: bytes) -> tuple[str, int]:
    """The text of `data` up to the last whole character, and how many bytes that is; broken bytes become U+FFFD."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(data)
    return text, len(data) - len(decoder.getstate()[0])


def whole_text(data: bytes, *, cut: bool) -> str:
    """`cut`: more bytes came or may come, so that half a character at the end is no fault of the job."""
    return split_text(data)[0] if cut else data.decode("utf-8", "replace")


def output_text(attempt: AttemptHistory, stream: Stream, data: bytes) -> str:
    return whole_text(data, cut=attempt.ended_at is None or attempt.truncated(stream))


def shown_attempt(job: JobHistory) -> AttemptHistory | None:
    """The one a result tells of: the last that started, else the last."""
    return job.last_started or (job.attempts[-1] if job.attempts else None)


def build_result(task_id: TaskId, job: JobHistory, stdout: bytes, stderr: bytes) -> dict[str, Any]:
    """The document of a job that has ended, with the output of `shown_attempt`."""
    attempt = shown_attempt(job)
    started = attempt.started_at if attempt else job.started_at
    document: dict[str, Any] = {
        "version": VERSION,
        "task_id": str(task_id),
        "job_id": str(job.id),
        "status": _status(job),
        "stdout": output_text(attempt, "stdout", stdout) if attempt else "",
        "stderr": output_text(attempt, "stderr", stderr) if attempt else "",
        "started_at": rfc3339(started) if started else None,
        "ended_at": rfc3339(job.ended_at) if job.ended_at else None,
        "truncated": {
            "stdout": bool(attempt and attempt.stdout_truncated),
            "stderr": bool(attempt and attempt.stderr_truncated),
        },
    }
    document |= _known({"exit_code": _exit_code(job, attempt), "error": _error(job, attempt)})
    if attempt:
        document |= {"attempt": attempt.attempt, "node_slug": attempt.node_slug}
        document |= _known({"runtime": attempt.runtime})
    return document


def encode_result(document: dict[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)


def _status(job: JobHistory) -> str:
    last = job.attempts[-1] if job.attempts else None
    if job.status is JobStatus.FAILED and last and last.started_at and last.outcome == "timeout":
        return "timeout"
    return job.status.value


def _exit_code(job: JobHistory, attempt: AttemptHistory | None) -> int | None:
    """That of an earlier attempt would be mistaken for the job's."""
    return attempt.exit_code if attempt and attempt is job.attempts[-1] else None


def _error(job: JobHistory, attempt: AttemptHistory | None) -> str | None:
    own = attempt.error if attempt and attempt is job.attempts[-1] and job.status is JobStatus.FAILED else None
    return job.error or own


def _known(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
