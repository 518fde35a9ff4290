"""Waiting out a gateway that is away while somebody looks on."""

import time
from collections.abc import Callable

from orchestrator.cli.failures import GatewayAway

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 5.0
WORTH_A_WORD = 2.0
PATIENCE = 300.0
"""A gateway that is being started anew is back within this."""


class Outage:
    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._began: float | None = None
        self._pause = FIRST_PAUSE
        self._said = False

    def over(self) -> None:
        self._began = None
        self._pause = FIRST_PAUSE
        self._said = False

    def wait(self, fault: GatewayAway) -> None:
        """Pauses a little longer each time; gives up with the fault when the gateway stays away."""
        if self._began is None:
            self._began = time.monotonic()
        elif not self._said and time.monotonic() - self._began > WORTH_A_WORD:
            self._said = True
            self._note(f"cynode: {fault.text} (trying again)")
        if time.monotonic() - self._began > PATIENCE:
            raise fault
        time.sleep(min(max(self._pause, fault.retry_after), LONGEST_PAUSE))
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
