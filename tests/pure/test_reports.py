"""What facts do to an attempt and its job: the rules of "a result counts once", as tables and as properties."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.attempts import AttemptRow, JobRow
from orchestrator.domain.reports import (
    STREAM_CAP_BYTES,
    Accepted,
    BadRecord,
    Fact,
    Finished,
    Ledger,
    NotListed,
    Output,
    Overdue,
    Ref,
    Rejected,
    Started,
    Verdict,
)
from orchestrator.domain.states import JobStatus, Outcome, TaskStatus

AT = datetime(2026, 1, 1, tzinfo=UTC)
JOB, TASK, NODE, OWNER, ASSIGNMENT = (UUID(int=n) for n in range(1, 6))
REF = Ref(JOB, 1, ASSIGNMENT)


NEVER: frozenset[str] = frozenset()


def attempt(*, started=True, tries=0, max_attempts=3, retry_on=NEVER) -> AttemptRow:
    job = JobRow(
        JOB,
        TASK,
        OWNER,
        1,
        JobStatus.RUNNING if started else JobStatus.ASSIGNED,
        0,
        1,
        tries,
        max_attempts,
        frozenset(retry_on),
        None,
        TaskStatus.RUNNING if started else TaskStatus.PENDING,
    )
    return AttemptRow(
        JOB,
        1,
        ASSIGNMENT,
        NODE,
        "spool",
        60.0,
        AT if started else None,
        AT if started else None,
        None,
        None,
        None,
        None,
        None,
        0,
        0,
        False,
        False,
        None,
        None,
        None,
        None,
        None,
        job,
    )


def finished(outcome: Outcome = Outcome.COMPLETED, code: int | None = 0, **fields: object) -> Finished:
    return replace(Finished(REF, AT, outcome, True, code, 0, 0, False, False, None), **fields)


def apply(row: AttemptRow, *facts: Fact) -> list[Verdict]:
    ledger = Ledger({ASSIGNMENT: row})
    return [ledger.apply(fact)[0] for fact in facts]


ENDS = [
    # fact, kwargs of the attempt, job status after, tries after, job error
    (finished(), {}, JobStatus.COMPLETED, 0, None),
    (finished(Outcome.FAILED, 3), {}, JobStatus.FAILED, 0, None),
    (finished(Outcome.COMPLETED, 3), {}, JobStatus.FAILED, 0, None),
    (finished(Outcome.FAILED, 3), {"retry_on": {"exit"}}, JobStatus.QUEUED, 1, None),
    (finished(Outcome.FAILED, 3), {"retry_on": {"exit"}, "tries": 2}, JobStatus.FAILED, 3, None),
    (finished(Outcome.TIMEOUT, None), {}, JobStatus.FAILED, 0, "timeout"),
    (finished(Outcome.TIMEOUT, None), {"retry_on": {"timeout"}}, JobStatus.QUEUED, 1, None),
    (finished(Outcome.LOST, None), {}, JobStatus.QUEUED, 1, None),
    (finished(Outcome.LOST, None), {"max_attempts": 1}, JobStatus.FAILED, 1, "node_lost"),
    (finished(Outcome.CANCELED, None), {}, JobStatus.QUEUED, 1, None),
    (finished(Outcome.HANDED_BACK, None), {}, JobStatus.QUEUED, 0, None),
    (finished(Outcome.HANDED_BACK, None), {"max_attempts": 1}, JobStatus.FAILED, 0, "handed_back"),
    (
        finished(Outcome.HANDED_BACK, None, started=False),
        {"started": False, "max_attempts": 1},
        JobStatus.QUEUED,
        0,
        None,
    ),
    (
        finished(Outcome.FAILED, None, started=False, error="image_pull: no such image"),
        {"started": False},
        JobStatus.QUEUED,
        1,
        None,
    ),
    (
        finished(Outcome.FAILED, None, started=False, error="image_pull: no such image"),
        {"started": False, "max_attempts": 1},
        JobStatus.FAILED,
        1,
        "image_pull: no such image",
    ),
    (finished(Outcome.FAILED, None, error="spool_full"), {}, JobStatus.QUEUED, 1, None),
    (NotListed(REF, AT), {}, JobStatus.QUEUED, 1, None),
    (NotListed(REF, AT), {"tries": 2}, JobStatus.FAILED, 3, "node_lost"),
    (Rejected(REF, AT, "busy"), {"started": False, "max_attempts": 1}, JobStatus.QUEUED, 0, None),
    (Rejected(REF, AT, "invalid", "no script"), {"started": False}, JobStatus.FAILED, 0, "invalid: no script"),
    (Overdue(REF, AT, Outcome.TIMEOUT, "timeout"), {}, JobStatus.FAILED, 0, "timeout"),
]


@pytest.mark.parametrize(("fact", "given", "status", "tries", "error"), ENDS)
def test_how_an_attempt_ends_decides_about_its_job(fact, given, status, tries, error) -> None:
    row = attempt(**given)
    assert apply(row, fact) == [Verdict.APPLIED]
    assert (row.job.status, row.job.tries, row.job.error) == (status, tries, error)
    assert not row.is_open


def test_a_retry_that_costs_a_try_waits_and_one_that_does_not_does_not() -> None:
    lost, back = attempt(), attempt()
    apply(lost, NotListed(REF, AT))
    apply(back, finished(Outcome.HANDED_BACK, None))
    assert lost.job.retry_in == 1
    assert back.job.retry_in is None


def test_a_result_after_the_end_is_dropped_and_changes_nothing() -> None:
    row = attempt()
    apply(row, NotListed(REF, AT))
    before = replace(row, job=replace(row.job))
    assert apply(row, finished(), Started(REF, AT), Output(REF, AT, "stdout", 0, b"late")) == [
        Verdict.DROPPED,
        Verdict.NOTHING_NEW,
        Verdict.DROPPED,
    ]
    assert row == before


def test_finished_waits_for_the_bytes_that_it_names_and_the_same_gap_again_is_a_bad_report() -> None:
    row = attempt()
    assert apply(row, finished(stdout_length=5)) == [Verdict.GAP]
    assert row.is_open
    assert apply(row, finished(stdout_length=5)) == [Verdict.APPLIED]
    assert (row.job.status, row.job.error) == (JobStatus.FAILED, "bad_report")


def test_a_gap_that_is_met_again_is_kept_whatever_is_committed_with_it() -> None:
    """Else the end, in a commit of its own, would not know that the report is bad, and be a gap itself, for ever."""
    row = attempt()
    late = Output(REF, AT, "stdout", 9, b"x")
    assert apply(row, late) == [Verdict.GAP]
    again = Ledger({ASSIGNMENT: row})
    assert again.apply(late)[0] is Verdict.DROPPED
    assert again.changed == {ASSIGNMENT: row}
    assert apply(row, finished(stdout_length=10)) == [Verdict.APPLIED]
    assert (row.job.status, row.job.error) == (JobStatus.FAILED, "bad_report")


def test_output_may_overlap_and_may_not_leave_a_gap() -> None:
    row = attempt()
    ledger = Ledger({ASSIGNMENT: row})
    assert ledger.apply(Output(REF, AT, "stdout", 0, b"abc"))[0] is Verdict.APPLIED
    assert ledger.apply(Output(REF, AT, "stdout", 1, b"bcde"))[0] is Verdict.APPLIED
    assert ledger.apply(Output(REF, AT, "stdout", 0, b"abc"))[0] is Verdict.NOTHING_NEW
    assert ledger.apply(Output(REF, AT, "stdout", 9, b"x"))[0] is Verdict.GAP
    assert b"".join(c.data for c in ledger.chunks) == b"abcde"


def test_output_beyond_the_cap_counts_and_is_not_stored() -> None:
    row = attempt()
    ledger = Ledger({ASSIGNMENT: row})
    ledger.apply(Output(REF, AT, "stderr", 0, b"x" * (STREAM_CAP_BYTES - 1)))
    ledger.apply(Output(REF, AT, "stderr", STREAM_CAP_BYTES - 1, b"yz"))
    ledger.apply(Output(REF, AT, "stderr", STREAM_CAP_BYTES + 1, b"more"))
    assert row.stderr_truncated
    assert row.stderr_length == STREAM_CAP_BYTES + 5
    assert sum(len(c.data) for c in ledger.chunks) == STREAM_CAP_BYTES


def test_a_bad_output_record_makes_the_result_a_bad_report() -> None:
    row = attempt()
    assert apply(row, BadRecord(REF, AT, "output", "data: not base64"), finished()) == [
        Verdict.DROPPED,
        Verdict.APPLIED,
    ]
    assert row.job.error == "bad_report"


def test_an_answer_to_a_stop_says_that_it_has_stopped_and_nothing_else() -> None:
    row = attempt()
    row.outcome, row.ended_at, row.stop_requested_at = Outcome.CANCELED, AT, AT
    row.job.status, row.job.task_status = JobStatus.CANCELED, TaskStatus.CANCELED
    assert apply(row, Output(REF, AT, "stdout", 0, b"last words")) == [Verdict.APPLIED]
    assert apply(row, finished(Outcome.CANCELED, None)) == [Verdict.APPLIED]
    assert row.stopped_at == AT
    assert apply(row, Output(REF, AT, "stdout", 10, b"!")) == [Verdict.DROPPED]
    assert row.job.status is JobStatus.CANCELED


def test_an_assignment_that_is_not_the_rows_is_dropped() -> None:
    ledger = Ledger({ASSIGNMENT: attempt()})
    assert ledger.apply(replace(finished(), ref=replace(REF, attempt=2)))[0] is Verdict.DROPPED
    assert ledger.apply(replace(finished(), ref=replace(REF, assignment_id=UUID(int=99))))[0] is Verdict.DROPPED


def a_fact() -> st.SearchStrategy[Fact]:
    outcomes = st.sampled_from([o for o in Outcome if o is not Outcome.REJECTED])
    return st.one_of(
        st.just(Accepted(REF, AT)),
        st.just(Started(REF, AT)),
        st.builds(lambda o, d: Output(REF, AT, "stdout", o, d), st.integers(0, 12), st.binary(max_size=8)),
        st.builds(lambda o, n: finished(o, None, stdout_length=n), outcomes, st.integers(0, 12)),
        st.just(Rejected(REF, AT, "busy")),
        st.just(NotListed(REF, AT)),
        st.just(Overdue(REF, AT, Outcome.TIMEOUT, "timeout")),
        st.just(BadRecord(REF, AT, "output", "bad")),
    )


@given(st.lists(a_fact(), max_size=30), st.booleans(), st.integers(1, 3))
def test_whatever_comes_an_attempt_ends_once_and_its_job_is_legal(facts, started, max_attempts) -> None:
    row = attempt(started=started, max_attempts=max_attempts)
    ledger = Ledger({ASSIGNMENT: row})
    first_end: tuple[object, ...] | None = None
    for fact in facts:
        ledger.apply(fact)
        end = (row.outcome, row.ended_at, row.exit_code, row.error, row.job.status, row.job.tries, row.job.error)
        if not row.is_open:
            first_end = first_end or end
            assert end == first_end  # nothing after the end changes how it ended
            assert row.job.status.is_ended or row.job.status is JobStatus.QUEUED
        assert row.job.tries <= row.job.max_attempts
        assert row.stopped_at is None or not row.is_open
    stored = b"".join(c.data for c in sorted(ledger.chunks, key=lambda c: c.offset))
    assert len(stored) == row.stdout_length  # contiguous: no gap, no overlap


@given(st.binary(max_size=60), st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=25))
def test_resent_output_is_stored_once_and_in_order(whole, pieces) -> None:
    row = attempt()
    ledger = Ledger({ASSIGNMENT: row})
    for start, length in [*pieces, (0, 60)]:
        if whole[start : start + length] and start <= row.stdout_length:  # a gap ends the link, and all is sent again
            ledger.apply(Output(REF, AT, "stdout", start, whole[start : start + length]))
    assert b"".join(c.data for c in ledger.chunks) == whole
