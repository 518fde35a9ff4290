"""What waits for a commit is bounded by its weight, too: one record of output may be 64 KiB."""

from uuid import uuid4

from orchestrator.app.clock import now
from orchestrator.domain.ids import AssignmentId, JobId
from orchestrator.domain.reports import Accepted, Output, Ref
from orchestrator.links.backlog import MOST_FACTS, MOST_WEIGHT, ROOM, ROOM_WEIGHT, Backlog, Entry

REF = Ref(JobId(uuid4()), 1, AssignmentId(uuid4()))


def output(size: int) -> Entry:
    return 1, Output(REF, now(), "stdout", 0, bytes(size))


def test_a_commit_is_bounded_by_weight_and_count_and_keeps_the_order() -> None:
    backlog = Backlog()
    assert backlog.take() == []
    heavy = [output(64 << 10) for _ in range(40)]
    light: list[Entry] = [(None, Accepted(REF, now())) for _ in range(3000)]
    backlog.add([*heavy, *light, (7, None)])
    taken = []
    while part := backlog.take():
        assert len(part) <= MOST_FACTS
        assert sum(len(fact.data) for _, fact in part if isinstance(fact, Output)) <= MOST_WEIGHT
        taken += part
    assert taken == [*heavy, *light, (7, None)]


def test_what_is_too_heavy_goes_alone() -> None:
    backlog = Backlog()
    backlog.add([output(2 * MOST_WEIGHT), output(1)])
    assert [len(backlog.take()), len(backlog.take())] == [1, 1]


def test_it_is_full_by_count_or_weight_and_empty_again() -> None:
    backlog = Backlog()
    backlog.add((None, None) for _ in range(ROOM + 1))
    assert backlog.is_full
    while backlog.take():
        pass
    assert not backlog.is_full
    backlog.add([output(ROOM_WEIGHT)])
    assert backlog.is_full
    backlog.take()
    assert not backlog.is_full
