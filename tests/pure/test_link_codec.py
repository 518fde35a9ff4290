"""Frames: what is refused and how, and that lists are cut so that each piece fits."""

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_agent.reports import finished_fields, frames, started_fields
from node_agent.spool_format import Entry, Kind, Ref, encode_output
from node_link.codec import BadFrame, FrameTooLarge, UnknownType, decode, encode, records, split
from node_link.messages import (
    MAX_FRAME_BYTES,
    Assignment,
    AttemptRef,
    FinishedRecord,
    JobsAccepted,
    JobsAssign,
    JobsFinished,
    JobsOutput,
    JobsStarted,
    OutputRecord,
)
from pure.link_samples import REF, WIRE_REF


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (b"{}", "binary"),
        ("", "JSON"),
        ("{", "JSON"),
        ("NaN", "JSON"),
        ('{"type": "ack", "spool_id": "s", "position": NaN}', "JSON"),
        ("[]", "object"),
        ("{}", "type"),
        ('{"type": 3}', "type"),
        ('{"type": "ack", "spool_id": "s", "position": -1}', "position"),
        ('{"type": "jobs.assign", "jobs": {}}', "jobs"),
        ('{"type": "jobs.cancel", "jobs": [{"job_id": "x"}]}', "jobs.0"),
        ("[" * 100_000, "JSON"),
    ],
)
def test_a_bad_frame_says_what_is_wrong(frame: Any, text: str) -> None:
    with pytest.raises(BadFrame, match=text):
        decode(frame)


def test_a_value_is_never_repeated_in_an_error() -> None:
    with pytest.raises(BadFrame) as caught:
        decode(json.dumps({"type": "ack", "spool_id": ["secret"], "position": 1}))
    assert "secret" not in str(caught.value)


def test_an_unknown_type_is_told_apart_and_cut() -> None:
    with pytest.raises(UnknownType) as caught:
        decode(json.dumps({"type": "x" * 1000}))
    assert len(caught.value.message_type) == 64


@pytest.mark.parametrize("text", ["x" * (MAX_FRAME_BYTES + 1), "é" * (MAX_FRAME_BYTES // 2 + 1)])
def test_the_limit_counts_bytes(text: str) -> None:
    with pytest.raises(FrameTooLarge):
        decode(text)


def test_a_bad_record_costs_only_itself() -> None:
    good = {**WIRE_REF, "position": 1, "age": 0, "outcome": "completed"}
    frame = JobsFinished(jobs=(good, {**good, "outcome": "great"}, {"job_id": 3}))
    first, second, third = records(frame)
    assert isinstance(first, FinishedRecord)
    assert isinstance(second, tuple) and "outcome" in second[1]
    assert isinstance(third, tuple)


@given(st.lists(st.integers(0, 500_000), max_size=8))
def test_a_list_is_cut_so_that_every_piece_fits_one_frame(sizes: list[int]) -> None:
    jobs = [
        Assignment(**REF, task_id=UUID(int=n), job_spec={"script": "x" * size}, timeout_seconds=1)
        for n, size in enumerate(sizes)
    ]
    pieces = list(split(jobs))
    assert [job for piece in pieces for job in piece] == jobs
    for piece in pieces:
        encode(JobsAssign(jobs=tuple(piece)))


def test_a_list_is_also_cut_by_count() -> None:
    pieces = list(split([AttemptRef(**REF)] * 4500))
    assert [len(piece) for piece in pieces] == [2000, 2000, 500]
    assert len(encode(JobsAccepted(jobs=tuple(pieces[0])))) < MAX_FRAME_BYTES


entries = st.builds(
    lambda kind, position, at, payload: Entry(kind, position, at, Ref.of(**REF), payload[kind]),
    st.sampled_from([Kind.STARTED, Kind.OUTPUT, Kind.FINISHED]),
    st.integers(0, 2**50),
    st.floats(0, 1e9),
    st.fixed_dictionaries(
        {
            Kind.STARTED: st.builds(started_fields, st.text(st.characters(exclude_categories=["Cs"]), max_size=60)),
            Kind.OUTPUT: st.builds(
                encode_output, st.sampled_from(["stdout", "stderr"]), st.integers(0, 2**50), st.binary(max_size=70_000)
            ),
            Kind.FINISHED: st.builds(
                finished_fields,
                st.sampled_from(["completed", "failed", "lost"]),
                started=st.booleans(),
                exit_code=st.none() | st.integers(0, 255),
                error=st.none() | st.text(max_size=3000),
            ),
        }
    ),
)


@given(st.lists(st.tuples(entries, st.floats(0, 1e8)), max_size=12))
def test_reports_built_as_text_are_what_the_models_read(reports: list[tuple[Entry, float]]) -> None:
    kinds = {JobsStarted: Kind.STARTED, JobsOutput: Kind.OUTPUT, JobsFinished: Kind.FINISHED}
    found = []
    for kind, text in frames(reports):
        message = decode(text)
        assert isinstance(message, JobsStarted | JobsOutput | JobsFinished)
        for record in records(message):
            assert not isinstance(record, tuple), record
            assert kinds[type(message)] is kind
            if isinstance(record, OutputRecord):
                assert len(record.data) <= 70_000
            found.append((kind, record.position))
    assert found == [(entry.kind, entry.position) for entry, _ in reports]


def test_the_end_of_a_job_fits_the_room_that_is_reserved_for_it() -> None:
    longest = finished_fields("failed", started=True, error="\x00" * 5000)
    assert len(longest) < 7000
