from orchestrator.app.login_limits import MOST_PAIRS, LoginLimits, PerAddress, delay
from orchestrator.domain.access import Caller
from orchestrator.domain.errors import RateLimited


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def seconds(limits: LoginLimits, handle: str, caller: Caller) -> int:
    try:
        limits.check(handle, caller)
    except RateLimited as error:
        return error.retry_after
    return 0


def test_the_delay_grows_to_a_minute() -> None:
    assert [delay(n) for n in range(1, 14)] == [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_delay_is_for_one_handle_from_one_address() -> None:
    clock, here, there = Clock(), Caller("1.1.1.1"), Caller("2.2.2.2")
    limits = LoginLimits(1000, clock)
    for _ in range(7):
        limits.failed("ann", here)
    assert seconds(limits, "ANN", here) == 4
    assert seconds(limits, "ann", there) == 0
    assert seconds(limits, "bob", here) == 0
    clock.now = 3.9
    assert seconds(limits, "ann", here) == 1
    clock.now = 4.0
    assert seconds(limits, "ann", here) == 0
    limits.succeeded("ann", here)
    limits.failed("ann", here)
    assert seconds(limits, "ann", here) == 0


def test_failures_of_long_ago_are_forgotten() -> None:
    clock, here = Clock(), Caller("1.1.1.1")
    limits = LoginLimits(1000, clock)
    for _ in range(20):
        limits.failed("ann", here)
    clock.now = 1000.0
    limits.failed("ann", here)
    assert seconds(limits, "ann", here) == 0


def test_the_memory_is_bounded() -> None:
    limits = LoginLimits(1000, Clock())
    for nth in range(MOST_PAIRS + 100):
        limits.failed(f"user{nth}", Caller("1.1.1.1"))
    assert len(limits._tallies) == MOST_PAIRS
    window = PerAddress(1, most=10)
    for nth in range(100):
        assert window.take(Caller(f"10.0.0.{nth}"))
    assert len(window._window.storage.events) == 10  # type: ignore[attr-defined]
    assert not window.take(Caller("10.0.0.99"))
