"""Several processes of one service on one port, for machines with several cores.

The parent opens a socket for each of them, all on the same port, and keeps it: so the kernel deals out the connections,
and those that wait for a worker that died wait for its successor. It does nothing else but watch them.
"""

import ctypes
import logging
import math
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass

log = logging.getLogger(__name__)

STOP_SECONDS = 15.0
"""More than a worker gives the requests in hand."""
SOON = 5.0
LONGEST_PAUSE = 5.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
_PR_SET_PDEATHSIG = 1


@dataclass
class _Worker:
    nth: int
    pid: int | None = None
    began: float = -math.inf
    due: float = -math.inf
    pause: float = 0.1


def supervise(count: int) -> int | None:
    """Returns many times: in each of `count` processes with its number, from 0 on, and in the parent with None.

    The parent starts those again that end, until SIGTERM or SIGINT; then it ends them and returns. To be called before
    there is any thread or loop, since it forks.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    workers = [_Worker(nth) for nth in range(count)]
    parent = os.getpid()
    try:
        while True:
            for worker in workers:
                if worker.pid is None and worker.due <= time.monotonic():
                    worker.began, worker.pid = time.monotonic(), os.fork()
                    if worker.pid == 0:
                        workers = []  # the others are not its own to end
                        _be_worker(parent)
                        return worker.nth
            wait = min((w.due for w in workers if w.pid is None), default=math.inf) - time.monotonic()
            told = signal.sigtimedwait(_SIGNALS, max(0.0, min(wait, 60.0)))
            if told is not None and told.si_signo != signal.SIGCHLD:
                return None
            _reap(workers)
    finally:
        _stop(workers)


def _be_worker(parent: int) -> None:
    """Ends with its parent, however that ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    if os.getppid() != parent:
        raise SystemExit(1)


def _reap(workers: list[_Worker]) -> None:
    for worker in workers:
        if worker.pid is None:
            continue
        pid, status = os.waitpid(worker.pid, os.WNOHANG)
        if not pid:
            continue
        now = time.monotonic()
        worker.pid = None
        worker.pause = 0.1 if now - worker.began > SOON else min(2 * worker.pause, LONGEST_PAUSE)
        worker.due = now + worker.pause
        code = os.waitstatus_to_exitcode(status)
        log.error("worker %d (pid %d) ended with %d and is started again", worker.nth, pid, code)


def _stop(workers: list[_Worker]) -> None:
    give_up = time.monotonic() + STOP_SECONDS
    for worker in workers:
        if worker.pid is not None:
            os.kill(worker.pid, signal.SIGTERM)
    while any(worker.pid is not None for worker in workers):
        for worker in workers:
            if worker.pid is not None and os.waitpid(worker.pid, os.WNOHANG)[0]:
                worker.pid = None
        left = give_up - time.monotonic()
        if left <= 0:
            _kill(workers)
            return
        if any(worker.pid is not None for worker in workers):
            signal.sigtimedwait([signal.SIGCHLD], min(left, 1.0))


def _kill(workers: list[_Worker]) -> None:
    for worker in workers:
        if worker.pid is not None:
            log.error("worker %d did not stop in %.0f s and is killed", worker.nth, STOP_SECONDS)
            with suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)
            os.waitpid(worker.pid, 0)
            worker.pid = None
