"""Users that jobs run as when the agent is root: numbers that nobody has, one a running job.

With a user of its own, all that a job left can be ended by one `kill -1` of that user, daemons that changed session and
environment too. Which numbers an agent uses follows from its state id, so that two agents on one machine differ.
"""

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# systemd's table of user numbers leaves 1879048192 to 2147483647 to nobody.
_FIRST = 2_000_000_000
_AGENTS = 10_000
_JOBS_EACH = 10_000
_LAST_SMALL = 65_533


class Uids:
    """The pool. For an agent that is not root there is one user, its own, which is never changed.

    `taken` is shared by all pools of one agent, so that runtimes that are found anew take no user of a running job.
    """

    def __init__(self, state_id: str, taken: set[int], uid_map: str | None = None) -> None:
        self.change = os.geteuid() == 0
        text = Path("/proc/self/uid_map").read_text() if uid_map is None else uid_map
        first = _FIRST + zlib.crc32(state_id.encode()) % _AGENTS * _JOBS_EACH
        self.range = range(first, first + _JOBS_EACH)
        if not _maps(text, self.range):  # in a container with few users
            self.range = range(_LAST_SMALL, _LAST_SMALL - 4000, -1)
        self._taken = taken

    @contextmanager
    def lend(self) -> Iterator[int | None]:
        """A user for one job; None when jobs run as the agent itself."""
        if not self.change:
            yield None
            return
        uid = next(uid for uid in self.range if uid not in self._taken)
        self._taken.add(uid)
        try:
            yield uid
        finally:
            self._taken.discard(uid)

    def idle(self, uid: int) -> bool:
        """Whether it is one of ours that no job has now."""
        return self.change and uid in self.range and uid not in self._taken


def _maps(uid_map: str, wanted: range) -> bool:
    lines = (line.split() for line in uid_map.splitlines())
    return any(int(first) <= wanted[0] and wanted[-1] < int(first) + int(count) for first, _, count in lines)
