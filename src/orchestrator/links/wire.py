"""Domain ↔ wire: records become facts, jobs become frames."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from node_link import codec, messages
from orchestrator.domain.dispatch import Held
from orchestrator.domain.ids import AssignmentId, JobId
from orchestrator.domain.reports import BadRecord, Fact, Finished, Output, Ref, Started
from orchestrator.domain.states import Outcome


def ref_of(wire: messages.AttemptRef) -> Ref:
    return Ref(JobId(wire.job_id), wire.attempt, AssignmentId(wire.assignment_id))


def wire_ref(ref: Ref) -> messages.AttemptRef:
    return messages.AttemptRef(job_id=ref.job_id, attempt=ref.attempt, assignment_id=ref.assignment_id)


def facts(frame: messages.ReportMessage, at: datetime) -> Iterator[tuple[int | None, Fact | None]]:
    """(position, fact) of each record, dated as `at` minus its age. A record that names no attempt has no fact."""
    for record in codec.records(frame):
        if isinstance(record, tuple):
            yield _bad(record[0], record[1], frame.type.partition(".")[2], at)
        else:
            yield record.position, _fact(record, at - timedelta(seconds=record.age))


def _fact(record: messages.Record, at: datetime) -> Fact:
    ref = ref_of(record)
    match record:
        case messages.StartedRecord():
            return Started(ref, at, record.runtime)
        case messages.OutputRecord():
            return Output(ref, at, record.stream, record.byte_offset, record.data)
        case messages.FinishedRecord():
            return Finished(
                ref,
                at,
                Outcome(record.outcome),
                record.started,
                record.exit_code,
                record.total_bytes.stdout,
                record.total_bytes.stderr,
                record.truncated.stdout,
                record.truncated.stderr,
                None if record.error is None else record.error.replace("\x00", "\ufffd"),
            )
    raise TypeError(type(record).__name__)


def _bad(raw: dict[str, Any], why: str, kind: str, at: datetime) -> tuple[int | None, Fact | None]:
    position = raw.get("position")
    placed = position if isinstance(position, int) and 0 <= position < 1 << 53 else None
    try:
        ref = Ref(JobId(UUID(raw["job_id"])), int(raw["attempt"]), AssignmentId(UUID(raw["assignment_id"])))
    except (KeyError, ValueError, TypeError, AttributeError):
        return placed, None
    return placed, BadRecord(ref, at, kind, why[:500].replace("\x00", "\ufffd"))


def assign_frames(jobs: Iterable[Held]) -> Iterator[codec.Encoded]:
    """Written as text: the spec is JSON already, and was checked when the task was made."""
    for piece in codec.split_texts(_assignment(job) for job in jobs):
        yield codec.Encoded("jobs.assign", f'{{"type":"jobs.assign","jobs":[{",".join(piece)}]}}')


def cancel_frames(stops: Iterable[tuple[Ref, str]], grace: float) -> Iterator[tuple[messages.Cancellation, ...]]:
    wire = (
        messages.Cancellation.model_validate(
            {
                "job_id": ref.job_id,
                "attempt": ref.attempt,
                "assignment_id": ref.assignment_id,
                "reason": reason,
                "grace_seconds": grace,
            }
        )
        for ref, reason in stops
    )
    for piece in codec.split(wire):
        yield tuple(piece)


def _assignment(job: Held) -> str:
    return (
        f'{{"job_id":"{job.job_id}","attempt":{job.attempt},"assignment_id":"{job.assignment_id}",'
        f'"task_id":"{job.task_id}","timeout_seconds":{job.timeout_seconds!r},"job_spec":{job.spec}}}'
    )
