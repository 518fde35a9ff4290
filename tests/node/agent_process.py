"""A real `cynode-node` process for tests, ended with everything it started."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

PROCESS = {"NODE_RUNTIME": "noop,process"}
"""For tests that need a real job: trying this runtime costs the agent a second at its start."""


class AgentProcess:
    def __init__(self, popen: subprocess.Popen[bytes], log: Path, env: dict[str, str]) -> None:
        self.popen = popen
        self.pid = popen.pid
        self.log = log
        self.env = env
        self._pidfd = os.pidfd_open(popen.pid)

    async def wait(self) -> int:
        """Its return code."""
        with trio.fail_after(15):
            while (code := self.popen.poll()) is None:
                await trio.lowlevel.wait_readable(self._pidfd)
            return code

    def send(self, number: int) -> None:
        self.popen.send_signal(number)

    async def kill(self) -> None:
        self.send(signal.SIGKILL)
        await self.wait()

    async def stop(self) -> int:
        self.send(signal.SIGTERM)
        return await self.wait()

    def logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def said(self, text: str) -> bool:
        return text in self.log.read_text()

    async def wait_said(self, text: str) -> None:
        """Until its log, which is a file, holds the text."""
        with trio.fail_after(10):
            while not self.said(text):  # noqa: ASYNC110 - a file rings no bell
                await trio.sleep(0.02)

    def peak_kb(self) -> int:
        """The most memory that it ever had."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])

    def close(self) -> None:
        os.close(self._pidfd)


def runs(pid: int, program: str) -> bool:
    """Whether this pid is still a process of that program."""
    try:
        return program.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def marked(assignment_id: str) -> list[int]:
    """Processes that bear the assignment's mark."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if assignment_id.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def open_home() -> Iterator[Path]:
    """A folder that the users of root's jobs can enter, which pytest's own is not."""
    home = Path(tempfile.mkdtemp(prefix="cynode-test-"))
    home.chmod(0o755)
    yield home
    shutil.rmtree(home)


def environment(url: str, state: Path, **settings: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(state.parent),
        "ORCHESTRATOR_URL": url,
        "NODE_SLUG": "n1",
        "NODE_STATE_DIR": str(state),
        "NODE_REGISTRATION_PSK": "psk-psk-psk-psk-psk-psk-psk-psk-psk",
        "NODE_SLOTS": "2",
        "NODE_RUNTIME": "noop",
        "NODE_ALLOW_NOOP": "1",
        "NODE_ALLOW_PROCESS": "1",
        **settings,
    }


def start(env: dict[str, str], folder: Path, *arguments: str) -> AgentProcess:
    log = folder / f"agent-{len(list(folder.glob('agent-*.log')))}.log"
    with log.open("wb") as out:
        popen = subprocess.Popen(
            [sys.executable, "-m", "node_agent", *arguments], env=env, stdout=out, stderr=out, cwd="/"
        )
    return AgentProcess(popen, log, env)


@asynccontextmanager
async def agent(
    url: str, state: Path, *arguments: str, fault: str = "", **settings: str
) -> AsyncIterator[AgentProcess]:
    env = environment(url, state, **settings)
    if fault:
        env |= {"CYNODE_DEVELOPMENT": "1", "CYNODE_FAULT": fault}
    process = start(env, state.parent, *arguments)
    popen = process.popen
    try:
        yield process
    finally:
        with trio.CancelScope(shield=True):
            if popen.poll() is None:
                popen.terminate()
                with trio.move_on_after(8):
                    await process.wait()
            if popen.poll() is None:
                popen.kill()
                await process.wait()
        process.close()
