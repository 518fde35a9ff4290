"""Real processes of the run: started, killed, stopped and started again; what they did by themselves is told."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trio

ROOT = Path(__file__).resolve().parent.parent
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
STOP_SECONDS = 10.0
STARTED = "--- started"


def uptime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass
class Life:
    began: float
    ended: float | None = None
    stops: list[tuple[float, float]] = field(default_factory=list)
    """While it stood still."""


@dataclass
class Process:
    """One part of the system. `up` holds while it should run; one that ends by itself while up is a finding."""

    name: str
    command: Sequence[str]
    environment: dict[str, str]
    folder: Path
    wrap: Sequence[str] = ()
    lives: list[Life] = field(default_factory=list)
    ended_alone: list[str] = field(default_factory=list)
    busy: bool = False
    """A fault has it in hand."""
    _popen: "subprocess.Popen[bytes] | None" = None

    @property
    def clock(self) -> Path:
        return self.folder / f"{self.name}.clock"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def pid(self) -> int:
        assert self._popen is not None
        return self._popen.pid

    def start(self) -> None:
        environment = dict(self.environment)
        if FAKETIME.exists():
            if not self.clock.exists():
                self.set_clock(0)
            environment |= {
                "LD_PRELOAD": str(FAKETIME),
                "FAKETIME_TIMESTAMP_FILE": str(self.clock),
                "FAKETIME_NO_CACHE": "1",
                "DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        with self.log.open("ab") as out:
            out.write(f"{STARTED}\n".encode())
            out.flush()
            self._popen = subprocess.Popen(
                [*self.wrap, *self.command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=ROOT,
                process_group=0,
            )
        self.lives.append(Life(uptime()))

    def set_clock(self, seconds: float) -> None:
        new = self.clock.with_suffix(".new")
        new.write_text(f"{seconds:+.0f}")
        new.chmod(0o644)
        new.replace(self.clock)

    def is_alive(self) -> bool:
        """Notes what ended without having been told to."""
        if self._popen is None:
            return False
        code = self._popen.poll()
        if code is not None:
            self._note_end()
            if not self._had_no_room():
                self.ended_alone.append(f"{self.name} ended by itself with {code}: see {self.log}")
        return code is None

    def _had_no_room(self) -> bool:
        """It was started on a disk that the run had filled, and said so."""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - 2000))
            return b"No space left on device; make room" in log.read().rstrip().rpartition(b"\n")[2]

    def has_said(self, text: str) -> bool:
        """Since it was last started."""
        return text in self.log.read_text(errors="replace").rpartition(STARTED)[2]

    async def kill(self) -> None:
        if self.is_alive():
            self.signal(signal.SIGKILL)
            await self._wait()

    async def stop(self) -> int | None:
        """As an operator does; None if it had to be killed."""
        if not self.is_alive():
            return None
        popen = self._popen
        self.signal(signal.SIGTERM)
        with trio.move_on_after(STOP_SECONDS) as deadline:
            await self._wait()
        if deadline.cancelled_caught:
            self.signal(signal.SIGKILL)
            await self._wait()
            return None
        return popen.returncode if popen else None

    def signal(self, number: int) -> None:
        if self._popen is not None:
            self._popen.send_signal(number)

    async def freeze(self, seconds: float) -> None:
        began = uptime()
        self.signal(signal.SIGSTOP)
        try:
            await trio.sleep(seconds)
        finally:
            self.signal(signal.SIGCONT)
            self.lives[-1].stops.append((began, uptime()))

    async def _wait(self) -> None:
        popen = self._popen
        assert popen is not None
        handle = os.pidfd_open(popen.pid)
        try:
            while popen.poll() is None:
                await trio.lowlevel.wait_readable(handle)
        finally:
            os.close(handle)
        self._note_end()

    def _note_end(self) -> None:
        self._popen = None
        self.lives[-1].ended = uptime()


def module(name: str, *arguments: str, planted: str | None = None) -> list[str]:
    """`python -m`, if need be with a fault planted into it."""
    sick = ["chaos.sick", planted] if planted else []
    return [sys.executable, "-m", *sick, name, *arguments]


def children_of(pid: int) -> list[int]:
    try:
        said = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in said.split()]


async def until(holds: Callable[[], bool], seconds: float) -> bool:
    """What it waits for is a fact of other processes, which rings no bell."""
    with trio.move_on_after(seconds):
        while not holds():
            await trio.sleep(0.05)
        return True
    return False
