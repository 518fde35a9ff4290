"""A task's events: told in one order, and resumed at any point without loss or repeat."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.cursors import Told, decode_cursor, decode_position, encode_cursor, encode_position
from orchestrator.domain.events import Event, ReadOutput, Teller
from orchestrator.domain.history import AttemptHistory, Chunk, History, JobHistory, OutputPage, Stream
from orchestrator.domain.ids import JobId, TaskId, UserId
from orchestrator.domain.states import JobStatus, TaskStatus

TASK, OWNER = TaskId(UUID(int=1)), UserId(UUID(int=2))
AT = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class World:
    """A history with its output, as a database would hold it at one moment."""

    history: History
    output: dict[tuple[JobId, int], tuple[Chunk, ...]]

    def page(self, asked: ReadOutput, most: int) -> OutputPage:
        stdout, stderr = asked.offsets
        found = [
            chunk
            for chunk in self.output.get((asked.job_id, asked.attempt), ())
            if chunk.end > (stdout if chunk.stream == "stdout" else stderr)
        ]
        return OutputPage(tuple(found[:most]), len(found) > most)


def attempt(number: int, *, started: bool = True, outcome: str | None = None, lengths: tuple[int, int] = (0, 0)) -> Any:
    return AttemptHistory(
        attempt=number, node_slug="n1", runtime="noop", started_at=AT if started else None,
        ended_at=AT if outcome else None, outcome=outcome, exit_code=None, error=None, stdout_length=lengths[0],
        stderr_length=lengths[1], stdout_truncated=False, stderr_truncated=False,
    )  # fmt: skip


def job(number: int, status: JobStatus, attempts: Sequence[AttemptHistory]) -> JobHistory:
    last = attempts[-1].attempt if attempts else 0
    return JobHistory(JobId(UUID(int=number)), status, last, None, AT, None, None, tuple(attempts))


def chunks(parts: Iterable[tuple[Stream, bytes]]) -> tuple[Chunk, ...]:
    upto = {"stdout": 0, "stderr": 0}
    made = []
    for seq, (stream, data) in enumerate(parts):
        made.append(Chunk(stream, upto[stream], seq, data))
        upto[stream] += len(data)
    return tuple(made)


def lengths_of(output: Sequence[Chunk]) -> tuple[int, int]:
    return (
        max((chunk.end for chunk in output if chunk.stream == "stdout"), default=0),
        max((chunk.end for chunk in output if chunk.stream == "stderr"), default=0),
    )


def tell(teller: Teller, world: World, most: int = 1000) -> list[Event]:
    teller.look(world.history)
    told = []
    while (step := teller.next()) is not None:
        if isinstance(step, Event):
            told.append(step)
        else:
            told.extend(teller.give(step, world.page(step, most)))
    return told


def tell_from(cursor: str | None, world: World, most: int = 1000) -> list[Event]:
    told = None if cursor is None else decode_cursor(cursor, TASK)
    assert cursor is None or told is not None
    return tell(Teller(world.history, told), world, most)


def plain(events: Iterable[Event]) -> list[tuple[str, dict[str, Any]]]:
    return [(event.kind, event.data) for event in events]


def texts(events: Iterable[Event]) -> dict[tuple[str, int, str], str]:
    """All text of each stream of each attempt, with a check that nothing is told twice or passed over."""
    joined: dict[tuple[str, int, str], str] = {}
    for event in events:
        if event.kind == "output":
            key = event.data["job_id"], event.data["attempt"], event.data["stream"]
            joined[key] = joined.get(key, "") + event.data["text"]
    return joined


def turns(events: Iterable[Event]) -> list[tuple[str, dict[str, Any]]]:
    return plain(event for event in events if event.kind != "output")


pieces = st.lists(
    st.tuples(
        st.sampled_from(["stdout", "stderr"]),
        st.one_of(
            st.binary(min_size=1, max_size=6), st.sampled_from(["é".encode()[:1], "é".encode()[1:], b"\xf0\x9f"])
        ),
    ),
    max_size=12,
)


@st.composite
def worlds(draw: st.DrawFn) -> list[World]:
    """The moments of one task's life, each an extension of the one before, down to its end."""
    moments: list[World] = []
    ended: dict[int, JobHistory] = {}
    output: dict[tuple[JobId, int], tuple[Chunk, ...]] = {}
    began = False
    count = draw(st.integers(1, 2))
    now = {n: job(n, JobStatus.QUEUED, []) for n in range(10, 10 + count)}

    def snap(status: TaskStatus | None = None) -> None:
        state = status or (TaskStatus.RUNNING if began else TaskStatus.PENDING)
        moments.append(World(History(TASK, OWNER, state, tuple(now[n] for n in sorted(now))), dict(output)))

    snap()
    while len(ended) < count:
        n = draw(st.sampled_from([n for n in now if n not in ended]))
        before = now[n].attempts
        number = len(before) + 1
        kind = draw(st.sampled_from(["runs", "rejected", "dropped"]))
        if kind == "runs":
            began = True
            told = chunks(draw(pieces))
            now[n] = job(n, JobStatus.RUNNING, [*before, attempt(number)])
            snap()
            for upto in range(1, len(told) + 1):
                output[now[n].id, number] = told[:upto]
                now[n] = job(n, JobStatus.RUNNING, [*before, attempt(number, lengths=lengths_of(told[:upto]))])
                snap()
            last = attempt(number, outcome="failed", lengths=lengths_of(told))
        else:
            last = attempt(number, started=False, outcome="rejected")
        over = kind == "dropped" or number >= 3 or draw(st.booleans())
        attempts = before if kind == "dropped" else (*before, last)
        now[n] = job(
            n, draw(st.sampled_from([JobStatus.FAILED, JobStatus.COMPLETED])) if over else JobStatus.QUEUED, attempts
        )
        if over:
            ended[n] = now[n]
        if len(ended) < count:
            snap()
    snap(TaskStatus.FAILED)
    return moments


@given(worlds(), st.integers(4, 20))
def test_every_prefix_and_its_resumption_are_the_whole(moments: list[World], most: int) -> None:
    world = moments[-1]
    whole = tell_from(None, world)
    for nth, event in enumerate(whole):
        assert plain(tell_from(event.cursor, world)) == plain(whole[nth + 1 :])
    paged = tell_from(None, world, most)
    assert turns(paged) == turns(whole)
    assert texts(paged) == texts(whole)


@given(worlds(), st.data())
def test_watching_live_with_broken_connections_tells_the_same_as_coming_late(moments: list[World], data: Any) -> None:
    """At each moment a reader may lose the rest of what was sent and come back with the last id it has seen."""
    seen: list[Event] = []
    teller: Teller | None = None
    for world in moments:
        if teller is None:
            teller = Teller(world.history, decode_cursor(seen[-1].cursor, TASK) if seen else None)
        fresh = tell(teller, world)
        if fresh and data.draw(st.booleans()):
            fresh = fresh[: data.draw(st.integers(0, len(fresh)))]
            teller = None
        seen.extend(fresh)
    seen.extend(tell_from(seen[-1].cursor if seen else None, moments[-1]))
    late = tell_from(None, moments[-1])
    assert texts(seen) == texts(late)
    assert [event.data for event in seen if event.kind == "status"] == [e.data for e in late if e.kind == "status"]
    assert [event.kind for event in seen].count("end") == 1 and seen[-1].kind == "end"
    assert late[-1].kind == "end"


@given(worlds())
def test_the_text_is_that_of_the_bytes(moments: list[World]) -> None:
    world = moments[-1]
    for (job_id, number, stream), text in texts(tell_from(None, world)).items():
        stored = world.output[JobId(UUID(job_id)), number]
        assert text == b"".join(chunk.data for chunk in stored if chunk.stream == stream).decode("utf-8", "replace")


@given(worlds())
def test_offsets_are_those_of_raw_bytes(moments: list[World]) -> None:
    world = moments[-1]
    upto: dict[tuple[str, int, str], int] = {}
    for event in tell_from(None, world):
        if event.kind == "output":
            key = event.data["job_id"], event.data["attempt"], event.data["stream"]
            assert event.data["offset"] >= upto.get(key, 0)
            if "\ufffd" not in event.data["text"]:
                upto[key] = event.data["offset"] + len(event.data["text"].encode())


def test_a_task_with_a_retry_in_order() -> None:
    first, second = chunks([("stdout", b"a"), ("stderr", b"b")]), chunks([("stdout", b"c")])
    one = job(
        5,
        JobStatus.COMPLETED,
        [attempt(1, outcome="lost", lengths=(1, 1)), attempt(2, outcome="completed", lengths=(1, 0))],
    )
    world = World(History(TASK, OWNER, TaskStatus.COMPLETED, (one,)), {(one.id, 1): first, (one.id, 2): second})
    name = {"job_id": str(one.id)}
    assert plain(tell_from(None, world)) == [
        ("status", {"status": "queued"}),
        ("status", {"status": "running"}),
        ("job", name | {"attempt": 1, "status": "running", "node_slug": "n1"}),
        ("output", name | {"attempt": 1, "stream": "stdout", "offset": 0, "text": "a"}),
        ("output", name | {"attempt": 1, "stream": "stderr", "offset": 0, "text": "b"}),
        ("job", name | {"attempt": 1, "status": "queued", "node_slug": "n1"}),
        ("job", name | {"attempt": 2, "status": "running", "node_slug": "n1"}),
        ("output", name | {"attempt": 2, "stream": "stdout", "offset": 0, "text": "c"}),
        ("job", name | {"attempt": 2, "status": "completed", "node_slug": "n1"}),
        ("status", {"status": "completed"}),
        ("end", {"status": "completed"}),
    ]


def test_half_a_character_waits_for_the_rest_or_for_the_end() -> None:
    first, both = chunks([("stdout", b"a\xc3")]), chunks([("stdout", b"a\xc3"), ("stdout", b"\xa9\xc3")])
    running = job(5, JobStatus.RUNNING, [attempt(1, lengths=(2, 0))])
    teller = Teller(History(TASK, OWNER, TaskStatus.RUNNING, (running,)))
    key = (str(running.id), 1, "stdout")
    world = World(History(TASK, OWNER, TaskStatus.RUNNING, (running,)), {(running.id, 1): first})
    assert texts(tell(teller, world)) == {key: "a"}
    assert tell(teller, world) == []
    more = replace(running, attempts=(attempt(1, lengths=(4, 0)),))
    assert texts(tell(teller, World(History(TASK, OWNER, TaskStatus.RUNNING, (more,)), {(more.id, 1): both}))) == {
        key: "é"
    }
    done = job(5, JobStatus.COMPLETED, [attempt(1, outcome="completed", lengths=(4, 0))])
    end = tell(teller, World(History(TASK, OWNER, TaskStatus.COMPLETED, (done,)), {(done.id, 1): both}))
    assert texts(end) == {key: "\ufffd"}
    assert teller.over


def test_where_output_was_dropped_half_a_character_is_left_out() -> None:
    cut = replace(attempt(1, outcome="completed", lengths=(9, 0)), stdout_truncated=True)
    done = job(5, JobStatus.COMPLETED, [cut])
    world = World(History(TASK, OWNER, TaskStatus.COMPLETED, (done,)), {(done.id, 1): chunks([("stdout", b"a\xc3")])})
    assert list(texts(tell_from(None, world)).values()) == ["a"]


@given(st.text(max_size=60))
def test_a_foreign_cursor_is_unknown(text: str) -> None:
    assert decode_cursor(text, TASK) is None


def test_a_cursor_of_another_task_or_of_what_never_was_is_unknown() -> None:
    cursor = encode_cursor(Told(TASK, "running"))
    assert decode_cursor(cursor, TaskId(UUID(int=9))) is None
    quiet = World(History(TASK, OWNER, TaskStatus.PENDING, (job(5, JobStatus.QUEUED, []),)), {})
    told = Told(TASK, "failed", over=True)
    assert plain(tell(Teller(quiet.history, told), quiet)) == [("status", {"status": "queued"})]


@given(st.uuids())
def test_a_position_comes_back(last: UUID) -> None:
    assert decode_position(encode_position(last)) == last
    assert decode_position(encode_position(last) + "x") is None
