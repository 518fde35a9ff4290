"""How often somebody may try to log in. In memory, for this process: a restart forgives.

Nobody can lock another's handle: what is counted is the address, and the address together with the handle.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import trio
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from orchestrator.domain.access import Caller, limit_key
from orchestrator.domain.errors import RateLimited

TOO_MANY = "Too many login attempts"
FREE_FAILURES = 5
LONGEST_DELAY = 60.0
FORGET_SECONDS = 900.0
MOST_ADDRESSES = 4096
MOST_PAIRS = 16384


class PerAddress:
    """So many events a minute for each address. The addresses seen last are known, so that memory is bounded."""

    def __init__(self, per_minute: int, most: int = MOST_ADDRESSES) -> None:
        self._limit = RateLimitItemPerMinute(per_minute)
        self._window = MovingWindowRateLimiter(MemoryStorage())
        self._known: OrderedDict[str, None] = OrderedDict()
        self._most = most

    def take(self, caller: Caller) -> bool:
        key = limit_key(caller.address)
        self._known[key] = None
        self._known.move_to_end(key)
        if len(self._known) > self._most:
            self._window.clear(self._limit, self._known.popitem(last=False)[0])
        return self._window.hit(self._limit, key)

    def seconds_left(self, caller: Caller) -> int:
        """Until the oldest event of the window has left it."""
        stats = self._window.get_window_stats(self._limit, limit_key(caller.address))
        return _wait(stats.reset_time - time.time())  # the library's own clock


@dataclass(slots=True)
class _Tally:
    failures: int
    last: float


class LoginLimits:
    def __init__(self, per_minute: int, clock: Callable[[], float] = trio.current_time) -> None:
        self._addresses = PerAddress(per_minute)
        self._unattributed = PerAddress(per_minute)
        self._tallies: OrderedDict[tuple[str, str], _Tally] = OrderedDict()
        self._clock = clock

    def check(self, handle: str, caller: Caller) -> None:
        """Counts one try. Raises RateLimited with the seconds to wait."""
        if not self._addresses.take(caller):
            raise RateLimited(TOO_MANY, retry_after=self._addresses.seconds_left(caller))
        tally = self._tallies.get(_pair(handle, caller))
        if tally is not None:
            left = tally.last + delay(tally.failures) - self._clock()
            if left > 0:
                raise RateLimited(TOO_MANY, retry_after=_wait(left))

    def failed(self, handle: str, caller: Caller) -> None:
        pair, now = _pair(handle, caller), self._clock()
        tally = self._tallies.pop(pair, None)
        fresh = tally is None or now - tally.last > FORGET_SECONDS
        self._tallies[pair] = _Tally(1 if fresh or tally is None else tally.failures + 1, now)
        if len(self._tallies) > MOST_PAIRS:
            self._tallies.popitem(last=False)

    def succeeded(self, handle: str, caller: Caller) -> None:
        self._tallies.pop(_pair(handle, caller), None)

    def may_note(self, caller: Caller) -> bool:
        """Whether a token that nobody signed is worth a row of audit: strangers must not fill the table."""
        return self._unattributed.take(caller)


def delay(failures: int) -> float:
    """Seconds after the last of so many failures in a row: none for the first few, then 1, 2, 4 … 60."""
    over = failures - FREE_FAILURES
    return 0.0 if over < 0 else min(2.0 ** min(over, 10), LONGEST_DELAY)


def _pair(handle: str, caller: Caller) -> tuple[str, str]:
    return handle[:64].lower(), limit_key(caller.address)


def _wait(seconds: float) -> int:
    return max(1, math.ceil(seconds))
