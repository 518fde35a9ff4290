"""Child processes that a Trio program waits for without a thread."""

import os
import signal
import subprocess
from collections.abc import Iterable

import trio

Process = subprocess.Popen[bytes]


async def wait_ended(process: Process) -> None:
    handle = os.pidfd_open(process.pid)
    try:
        while process.poll() is None:
            await trio.lowlevel.wait_readable(handle)
    finally:
        os.close(handle)


async def end(process: Process, signals: Iterable[tuple[signal.Signals, float]]) -> None:
    """Sends each signal and waits its seconds, until it has ended."""
    for how, seconds in signals:
        if process.poll() is None:
            process.send_signal(how)
            with trio.move_on_after(seconds):
                await wait_ended(process)
