"""The one transition table, walked whole: what it lists happens, everything else is refused."""

import itertools

import pytest

from orchestrator.domain.states import (
    ROWS,
    Event,
    IllegalTransition,
    JobStatus,
    LeaseState,
    TaskStatus,
    step,
)

STATES = [*TaskStatus, *JobStatus, *LeaseState]


@pytest.mark.parametrize(
    ("state", "event"), list(itertools.product(STATES, Event)), ids=lambda v: f"{type(v).__name__}.{v.name}"
)
def test_every_pair_is_listed_or_refused(state, event) -> None:
    rows = [after for before, cause, after in ROWS if (type(before), before, cause) == (type(state), state, event)]
    if rows:
        assert [step(state, event)] == rows
        assert type(step(state, event)) is type(state)
    else:
        with pytest.raises(IllegalTransition):
            step(state, event)


def test_nothing_leaves_a_final_state() -> None:
    assert not [row for row in ROWS if isinstance(row[0], TaskStatus) and row[0].is_closed]
    assert not [row for row in ROWS if isinstance(row[0], JobStatus) and row[0].is_ended]


def test_every_running_task_can_end() -> None:
    for event in (Event.ALL_COMPLETED, Event.SOME_FAILED, Event.CANCEL, Event.SUPERSEDE):
        assert step(TaskStatus.RUNNING, event).is_closed
