"""What one fact about an attempt changes: the heart of "a result counts once". Pure.

Facts come from the node (accepted, rejected, started, output, finished) or are found by the server (not listed in two
heartbeats, overdue). Each is judged against the locked row; the verdict says what the link does about it.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from orchestrator.domain.attempts import BAD_REPORT, AttemptRow, End, end_attempt, start_attempt
from orchestrator.domain.ids import AssignmentId, JobId
from orchestrator.domain.states import Outcome

STREAM_CAP_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Ref:
    job_id: JobId
    attempt: int
    assignment_id: AssignmentId


@dataclass(frozen=True, slots=True)
class Fact:
    ref: Ref
    at: datetime


@dataclass(frozen=True, slots=True)
class Accepted(Fact):
    pass


@dataclass(frozen=True, slots=True)
class Rejected(Fact):
    reason: str
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Started(Fact):
    runtime: str | None = None


@dataclass(frozen=True, slots=True)
class Output(Fact):
    stream: str
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Finished(Fact):
    outcome: Outcome
    started: bool
    exit_code: int | None
    stdout_length: int
    stderr_length: int
    stdout_truncated: bool
    stderr_truncated: bool
    error: str | None


@dataclass(frozen=True, slots=True)
class NotListed(Fact):
    """Two heartbeats, or a hello, did not list it: what was accepted is lost, what was to be stopped has stopped."""


@dataclass(frozen=True, slots=True)
class Overdue(Fact):
    """The server's own net: it ran 60 s past its timeout, or was accepted and not started for 660 s."""

    outcome: Outcome
    error: str


@dataclass(frozen=True, slots=True)
class BadRecord(Fact):
    """A record in a well-formed frame that can never be stored."""

    kind: str
    reason: str


class Verdict(StrEnum):
    APPLIED = "applied"
    NOTHING_NEW = "nothing new"
    """A repeat of what is stored: acknowledged, not worth a line."""
    DROPPED = "dropped"
    """Acknowledged, audited, and of no effect."""
    GAP = "gap"
    """Bytes before it are missing: the link closes with 1013, and the node sends again from the last ack."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes to store."""

    row: AttemptRow
    stream: str
    offset: int
    data: bytes
    at: datetime


@dataclass(slots=True)
class Ledger:
    """Applies facts to locked rows and remembers what there is to save."""

    rows: dict[AssignmentId, AttemptRow]
    jitter: float = 0.5
    changed: dict[AssignmentId, AttemptRow] = field(default_factory=dict)
    chunks: list[Chunk] = field(default_factory=list)

    def apply(self, fact: Fact) -> tuple[Verdict, str]:
        """The verdict, and for a dropped or refused fact the reason."""
        row = self.rows.get(fact.ref.assignment_id)
        if row is None or (row.job_id, row.attempt) != (fact.ref.job_id, fact.ref.attempt):
            return Verdict.DROPPED, "no such assignment of this node"
        bad_before = row.bad_report
        verdict, reason = self._judge(row, fact)
        if verdict in (Verdict.APPLIED, Verdict.GAP) or row.bad_report != bad_before:
            self.changed[row.assignment_id] = row
        return verdict, reason

    def _judge(self, row: AttemptRow, fact: Fact) -> tuple[Verdict, str]:
        match fact:
            case Output():
                return self._output(row, fact)
            case BadRecord():
                if row.is_open and fact.kind == "output":
                    row.bad_report = fact.reason
                return Verdict.DROPPED, fact.reason
            case _ if not row.is_open:
                return _after_end(row, fact)
            case Accepted():
                return _accepted(row, fact)
            case Rejected():
                return self._rejected(row, fact)
            case Started():
                return _started(row, fact)
            case Finished():
                return self._finished(row, fact)
            case NotListed():
                self._end(row, End(Outcome.LOST, fact.at))
                return Verdict.APPLIED, ""
            case Overdue():
                self._end(row, End(fact.outcome, fact.at, error=fact.error, stopped=False))
                row.stop_reason, row.stop_requested_at = "timeout", fact.at
                return Verdict.APPLIED, ""
        raise TypeError(type(fact).__name__)

    def _end(self, row: AttemptRow, end: End) -> None:
        end_attempt(row, end, jitter=self.jitter)

    def _rejected(self, row: AttemptRow, fact: Rejected) -> tuple[Verdict, str]:
        if row.accepted_at is not None or row.started_at is not None:
            self._end(row, End(Outcome.LOST, fact.at))
        elif fact.reason == "invalid":
            why = f"invalid: {fact.detail}" if fact.detail else "invalid"
            self._end(row, End(Outcome.REJECTED, fact.at, final_error=why))
        else:
            self._end(row, End(Outcome.REJECTED, fact.at, error=fact.reason))
        return Verdict.APPLIED, ""

    def _output(self, row: AttemptRow, fact: Output) -> tuple[Verdict, str]:
        if not _takes_output(row):
            return Verdict.DROPPED, "output after the end of its attempt"
        stored = row.stdout_length if fact.stream == "stdout" else row.stderr_length
        if fact.offset > stored:
            return _gap(row, f"{fact.stream} has {stored} bytes, the record begins at {fact.offset}")
        new = fact.data[stored - fact.offset :]
        if not new:
            return Verdict.NOTHING_NEW, ""
        kept = new[: max(0, STREAM_CAP_BYTES - stored)]
        if kept:
            self.chunks.append(Chunk(row, fact.stream, stored, kept, fact.at))
        cut = len(kept) < len(new)
        if fact.stream == "stdout":
            row.stdout_length, row.stdout_truncated = stored + len(new), row.stdout_truncated or cut
        else:
            row.stderr_length, row.stderr_truncated = stored + len(new), row.stderr_truncated or cut
        return Verdict.APPLIED, ""

    def _finished(self, row: AttemptRow, fact: Finished) -> tuple[Verdict, str]:
        missing = fact.stdout_length > row.stdout_length or fact.stderr_length > row.stderr_length
        if missing and row.bad_report is None:
            verdict, reason = _gap(row, f"finished names {fact.stdout_length}+{fact.stderr_length} bytes")
            if verdict is Verdict.GAP:
                return verdict, reason
        _note_finish(row, fact)
        if row.started_at is None and (fact.started or fact.outcome is Outcome.COMPLETED):
            start_attempt(row, fact.at, None)
        if row.bad_report is not None:
            self._end(row, End(Outcome.FAILED, fact.at, exit_code=fact.exit_code, final_error=BAD_REPORT))
            return Verdict.APPLIED, ""
        outcome, error = fact.outcome, fact.error
        if outcome is Outcome.CANCELED:  # nobody asked for that: the node gave it up
            outcome = Outcome.LOST
        if outcome is Outcome.COMPLETED and fact.exit_code not in (0, None):
            outcome = Outcome.FAILED
        self._end(row, End(outcome, fact.at, exit_code=fact.exit_code, error=error))
        return Verdict.APPLIED, ""


def _accepted(row: AttemptRow, fact: Fact) -> tuple[Verdict, str]:
    if row.accepted_at is not None:
        return Verdict.NOTHING_NEW, ""
    row.accepted_at = fact.at
    return Verdict.APPLIED, ""


def _started(row: AttemptRow, fact: Started) -> tuple[Verdict, str]:
    if row.started_at is not None:
        return Verdict.NOTHING_NEW, ""
    start_attempt(row, fact.at, fact.runtime)
    return Verdict.APPLIED, ""


def _takes_output(row: AttemptRow) -> bool:
    if row.is_open:
        return row.bad_report is None
    return row.outcome in (Outcome.CANCELED, Outcome.TIMEOUT) and row.stopped_at is None


def _gap(row: AttemptRow, where: str) -> tuple[Verdict, str]:
    """The first time the node may mend it; the same gap again can never be stored."""
    if row.gap == where:
        row.bad_report = f"gap: {where}"
        return Verdict.DROPPED, row.bad_report
    row.gap = where
    return Verdict.GAP, where


def _after_end(row: AttemptRow, fact: Fact) -> tuple[Verdict, str]:
    """Nothing counts after the end; but an answer to a stop, or silence about it, says that it has stopped."""
    stops = isinstance(fact, Finished | Rejected | NotListed)
    if stops and row.stopped_at is None:
        row.stopped_at = fact.at
        if isinstance(fact, Finished):
            _note_finish(row, fact)
        return Verdict.APPLIED, ""
    if isinstance(fact, Finished) and row.outcome is fact.outcome:
        return Verdict.NOTHING_NEW, ""  # the same record again, after an ack that was lost
    if isinstance(fact, Started) and row.started_at is not None:
        return Verdict.NOTHING_NEW, ""
    if isinstance(fact, Accepted | NotListed | Overdue | Rejected):
        return Verdict.NOTHING_NEW, ""
    return Verdict.DROPPED, f"the attempt has ended ({row.outcome})"


def _note_finish(row: AttemptRow, fact: Finished) -> None:
    row.stdout_truncated = row.stdout_truncated or fact.stdout_truncated
    row.stderr_truncated = row.stderr_truncated or fact.stderr_truncated
