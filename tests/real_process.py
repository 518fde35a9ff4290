"""A real process for tests: what it says is read as it comes, and it is ended by its own pid."""

import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio


class Process:
    def __init__(self, popen: "subprocess.Popen[bytes]") -> None:
        self.popen = popen
        self.pid = popen.pid
        self.said = ""
        self._pidfd = os.pidfd_open(popen.pid)
        self._news = trio.Event()
        self._silent = trio.Event()

    async def read(self) -> None:
        assert self.popen.stdout is not None
        async with trio.lowlevel.FdStream(os.dup(self.popen.stdout.fileno())) as stream:
            async for data in stream:
                self.said += data.decode(errors="replace")
                self._tell()
        self._silent.set()
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def wait_said(self, pattern: str, seconds: float = 30, since: int = 0) -> "re.Match[str]":
        """Until it has said this; `since` is where in what it said the search begins."""
        with trio.move_on_after(seconds):
            while True:
                if found := re.compile(pattern).search(self.said, since):
                    return found
                if self._silent.is_set():
                    raise AssertionError(f"it ended without saying {pattern!r}:\n{self.said[-4000:]}")
                await self._news.wait()
        raise AssertionError(f"it did not say {pattern!r}:\n{self.said[-4000:]}")

    async def wait(self, seconds: float = 15) -> int:
        """Its return code, when all that it said is read."""
        with trio.move_on_after(seconds):
            while self.popen.poll() is None:
                await trio.lowlevel.wait_readable(self._pidfd)
            await self._silent.wait()
            return self.popen.wait()
        raise AssertionError(f"it did not end in {seconds} s:\n{self.said[-4000:]}")

    def send(self, number: int) -> None:
        self.popen.send_signal(number)

    async def kill(self) -> None:
        self.send(signal.SIGKILL)
        await self.wait()

    async def stop(self, number: int = signal.SIGTERM, seconds: float = 15) -> int:
        self.send(number)
        return await self.wait(seconds)

    def memory_kb(self) -> int:
        """What it holds for itself: shared pages count by their share."""
        found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{self.pid}/smaps_rollup").read_text(), re.MULTILINE)
        assert found is not None
        return int(found[1])

    def ask_to_end(self) -> None:
        if self.popen.poll() is None:
            self.popen.terminate()
            self.popen.send_signal(signal.SIGCONT)

    def close(self) -> None:
        try:
            self.popen.wait(8)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        os.close(self._pidfd)
        if self.popen.stdout is not None:
            self.popen.stdout.close()


class Processes:
    """What a test started: read by one nursery, and all ended with it."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._readers = nursery
        self._started: list[Process] = []

    def start(self, command: Sequence[str | Path], env: Mapping[str, str]) -> Process:
        popen = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/"
        )
        process = Process(popen)
        self._started.append(process)
        self._readers.start_soon(process.read)
        return process

    def close(self) -> None:
        for process in reversed(self._started):
            process.ask_to_end()
        for process in reversed(self._started):
            process.close()


@asynccontextmanager
async def open_processes() -> AsyncIterator[Processes]:
    async with trio.open_nursery() as nursery:
        processes = Processes(nursery)
        try:
            yield processes
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(processes.close)
            nursery.cancel_scope.cancel()


def is_alive(pid: int) -> bool:
    """Neither gone nor a zombie that nobody has read yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def wait_gone(pid: int, seconds: float = 15) -> None:
    """By pidfd where it still is; a process of another parent rings no other bell."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with trio.fail_after(seconds):
            await trio.lowlevel.wait_readable(pidfd)
    finally:
        os.close(pidfd)
