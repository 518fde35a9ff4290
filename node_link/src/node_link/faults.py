"""Named points at which a crash test kills this process; they do nothing unless CYNODE_FAULT names one.

`CYNODE_FAULT=point` kills at the first pass, `point:3` at the third. Read once, at import, and only with
CYNODE_DEVELOPMENT=1, so that no production process can be made to crash by its environment alone.
"""

import os
import signal

_point, _, _nth = os.environ.get("CYNODE_FAULT", "").partition(":")
_armed = _point if os.environ.get("CYNODE_DEVELOPMENT") == "1" else ""
_passes_left = int(_nth or 1)


def reach(point: str) -> None:
    """Sends SIGKILL to this process when `point` is the armed one."""
    global _passes_left
    if point != _armed:
        return
    _passes_left -= 1
    if _passes_left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
