"""What follows the end of a link, and how long the pause is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_agent.node_settings import BadNodeConfig, read_node_config
from node_agent.redial import MOST_SECONDS, Ended, Next, next_after, pause


@pytest.mark.parametrize(
    ("ended", "following"),
    [
        (Ended("", code=1001, welcomed=True), Next.DIAL),
        (Ended("", code=1006), Next.DIAL),
        (Ended("", code=1013, welcomed=True), Next.DIAL),
        (Ended("", code=4400, welcomed=True), Next.DIAL),
        (Ended("", code=4408, welcomed=True), Next.DIAL),
        (Ended("", code=4409), Next.WAIT),
        (Ended("", code=4409, welcomed=True), Next.DISPLACED),
        (Ended("", code=4409, welcomed=True, crossed=True), Next.DIAL),
        (Ended("", code=4401, welcomed=True), Next.NEW_TOKEN),
        (Ended("", code=1008, welcomed=True), Next.WAIT),
        (Ended("", status=401), Next.NEW_TOKEN),
        (Ended("", status=403), Next.WAIT),
        (Ended("", status=503), Next.DIAL),
        (Ended(""), Next.DIAL),
    ],
)
def test_what_follows(ended: Ended, following: Next) -> None:
    assert next_after(ended) is following


@given(st.integers(0, 10**6), st.floats(0, 1), st.sampled_from([Next.DIAL, Next.NEW_TOKEN]))
def test_a_pause_has_full_jitter_and_is_capped(failures: int, chance: float, following: Next) -> None:
    assert 0 <= pause(failures, 10, following, chance) <= MOST_SECONDS
    assert pause(failures, 10, following, 0) == 0
    assert pause(failures, 10, Next.WAIT, chance) == 10


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"config_version": 3},
        {"config_version": "a", "version": 2},
        {"config_version": "a", "node_slug": "other"},
        {"config_version": "a", "constraints": ["x"]},
        {"config_version": "a", "constraints": {"max_job_timeout_seconds": 0}},
        {"config_version": "a", "constraints": {"max_job_timeout_seconds": True}},
    ],
)
def test_a_configuration_that_cannot_be_applied_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(BadNodeConfig):
        read_node_config(config, "n1")
