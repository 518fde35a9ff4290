"""The embedded PostgreSQL: ours alone, on a socket in a private folder, started again should it die.

`open_postgres` is for `cynode up`, `running_postgres` for tests and tools without Trio.
"""

import logging
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import trio

from orchestrator.local import pg_cluster
from orchestrator.local.children import Process, end, wait_ended
from orchestrator.local.pg_cluster import Cluster
from orchestrator.local.state import CannotStart, StateFolder

START_SECONDS = 60.0
"""Recovery after a crash is part of a start."""
LEAVE_SECONDS = 15.0
STOP_SECONDS = 3.0
STOP = tuple((how, STOP_SECONDS) for how in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL))
"""Fast, then at once, then by force; each of them loses nothing that was committed."""
PAUSE = 0.02
SOON = 5.0

log = logging.getLogger(__name__)


@asynccontextmanager
async def open_postgres(
    state: StateFolder, *, bin_dir: Path | None = None, settings: dict[str, str] | None = None
) -> AsyncIterator[str]:
    """Yields the DSN once the server takes connections; it has ended when this returns."""
    cluster = await trio.to_thread.run_sync(pg_cluster.prepare_cluster, state, bin_dir)
    start = partial(pg_cluster.start, cluster, settings)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(_keep_running, cluster, start)
            yield cluster.dsn
            nursery.cancel_scope.cancel()
    finally:
        pg_cluster.clear_away(cluster)


async def _keep_running(cluster: Cluster, start: "partial[Process]", *, task_status: trio.TaskStatus[None]) -> None:
    """A server that was killed comes back on the same socket; one that cannot start ends us."""
    while True:
        attempt = _Attempts(cluster, start)
        try:
            with trio.fail_after(START_SECONDS):
                while not attempt.is_ready():  # noqa: ASYNC110 - what it waits for is a file of another process
                    await trio.sleep(PAUSE)
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            ready = trio.current_time()
            await wait_ended(attempt.process)
        except trio.TooSlowError:
            raise CannotStart(f"PostgreSQL was not ready in {START_SECONDS:.0f} s: see {cluster.log}") from None
        finally:
            with trio.CancelScope(shield=True):
                await end(attempt.process, STOP)
        how = attempt.process.returncode
        log.error("PostgreSQL ended unexpectedly (%s) and is started again: see %s", how, cluster.log)
        if trio.current_time() - ready < SOON:
            await trio.sleep(1)  # it may well do so again


class _Attempts:
    """Starts the server, and again while the one of a killed process is still shutting down."""

    def __init__(self, cluster: Cluster, start: "partial[Process]") -> None:
        self._cluster = cluster
        self._start = start
        self._give_up = time.monotonic() + LEAVE_SECONDS
        self._begin()

    def _begin(self) -> None:
        self._said = self._cluster.log.stat().st_size if self._cluster.log.exists() else 0
        pg_cluster.disown_dead(self._cluster)
        self.process = self._start()

    def is_ready(self) -> bool:
        if self.process.poll() is None:
            return pg_cluster.is_ready(self._cluster, self.process.pid)
        said = pg_cluster.what_it_said(self._cluster, self._said)
        killed = self.process.returncode < 0  # in mid recovery, say by whoever is short of memory
        if not (killed or pg_cluster.is_still_leaving(said)) or time.monotonic() > self._give_up:
            raise CannotStart(f"PostgreSQL did not start (see {self._cluster.log}): {said.strip()[-2000:]}")
        self._begin()
        return False


@contextmanager
def running_postgres(
    state: StateFolder, *, bin_dir: Path | None = None, settings: dict[str, str] | None = None
) -> Iterator[str]:
    """The same without Trio, and without starting it again; the calling thread must live on."""
    cluster = pg_cluster.prepare_cluster(state, bin_dir)
    attempt = _Attempts(cluster, partial(pg_cluster.start, cluster, settings))
    try:
        deadline = time.monotonic() + START_SECONDS
        while not attempt.is_ready():
            if time.monotonic() > deadline:
                raise CannotStart(f"PostgreSQL was not ready in {START_SECONDS:.0f} s: see {cluster.log}")
            time.sleep(PAUSE)
        yield cluster.dsn
    finally:
        attempt.process.send_signal(signal.SIGINT)
        try:
            attempt.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            attempt.process.kill()
            attempt.process.wait()
        pg_cluster.clear_away(cluster)
