"""The times that the spool keeps: CLOCK_BOOTTIME goes on across restarts of the agent, but not of the machine."""

import time
from pathlib import Path


class Clock:
    """Seconds since the machine started, with the boot that they belong to."""

    def __init__(self) -> None:
        self.boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()

    def now(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall_of_boot(self) -> float:
        return time.time() - self.now()

    def age(self, at: float, boot_id: str, wall_of_boot: float) -> float:
        """How long ago `at` was; after a reboot only the wall clock can tell."""
        age = self.now() - at if boot_id == self.boot_id else time.time() - wall_of_boot - at
        return min(max(age, 0.0), 10 * 365 * 86400.0)
