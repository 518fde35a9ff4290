"""What every runtime offers the runner, and what the runner hands it."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from types import MappingProxyType
from typing import Protocol
from uuid import UUID

import trio

from node_agent.sandbox.spec import Ending, JobToRun, Limits, Outcome, RuntimeName
from node_link.messages import Stream

OnStarted = Callable[[], Awaitable[None]]
OnOutput = Callable[[Stream, int, bytes], Awaitable[None]]


class Stop:
    """Asks a running job to end, from outside: SIGTERM at once, SIGKILL when the grace is over.

    The first request says the outcome. A later one can only shorten the grace, never lengthen it.
    """

    def __init__(self) -> None:
        self.outcome: Outcome | None = None
        self._kill_at = inf
        self._changed: trio.Event | None = None
        """While somebody waits."""

    def request(self, outcome: Outcome, grace_seconds: float) -> None:
        self.outcome = self.outcome or outcome
        self._kill_at = min(self._kill_at, trio.current_time() + grace_seconds)
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def wait_asked(self) -> None:
        if self.outcome is not None:
            await trio.lowlevel.checkpoint()
        while self.outcome is None:
            await self._wait_changed()

    async def wait_grace_over(self) -> None:
        while (kill_at := self._kill_at) > trio.current_time():
            with trio.move_on_at(kill_at):
                await self._wait_changed()

    async def _wait_changed(self) -> None:
        if self._changed is None:
            self._changed = trio.Event()
        await self._changed.wait()


class Runtime(Protocol):
    @property
    def name(self) -> RuntimeName: ...

    @property
    def limits(self) -> bool:
        """Whether memory, pids and CPU are really limited here: a trial has proved it."""

    @property
    def images(self) -> bool: ...

    async def prepare(self, job: JobToRun) -> None:
        """Gets what the job needs (its image), before its time runs; raises NodeFault.

        It may remember what it found. `run` raises PreparedInVain when that no longer holds, and is to be tried again
        after another `prepare`.
        """

    async def run(
        self, job: JobToRun, folder: Path, mark: str, on_started: OnStarted, on_output: OnOutput, stop: Stop
    ) -> Ending:
        """Runs the job to its end; returns only when nothing of it is left but `folder`.

        `folder` is made by the runtime when it needs one, and stays until `remove_folder`. `on_output` is awaited
        before more is read, with at most 64 KiB; nothing is given to it before `on_started` has returned.
        """

    async def sweep(self, mark: str, keep: Collection[UUID]) -> list[str]:
        """Ends whatever bears `mark` and is of no assignment in `keep`; says what it ended, a line each."""


@dataclass(frozen=True)
class SandboxSettings:
    """What the node's configuration says about sandboxes."""

    state_id: str
    """The mark: the state folder's id, which never changes."""
    mounts: Path
    """`<state>/sandbox_mounts`; below it one folder an assignment."""
    slots: int = 1
    offered: frozenset[RuntimeName] | None = None
    """NODE_RUNTIME: the only runtimes to try; None is all."""
    allow_process: bool = False
    allow_noop: bool = False
    default_image: str | None = None
    default_limits: Limits = field(default=Limits(pids=1024))
    """For jobs that name none, where limits are real: a fork bomb must not take the machine."""
    podman_args: tuple[str, ...] = ()
    """Given to every podman command, before its name: `--storage-driver vfs --runtime runc`."""
    podman_run_args: tuple[str, ...] = ()
    """Given to `podman run`: `--ulimit nproc=1024:1024`."""
    tool_env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """What podman and docker see of the agent's environment: HOME, PATH, XDG_RUNTIME_DIR, DOCKER_HOST and the like."""
    pull_seconds: float = 600.0


@dataclass(frozen=True)
class Found:
    """One runtime that was looked for: the runtime itself, or why it is missing and what mends that."""

    name: RuntimeName
    runtime: Runtime | None
    detail: str
    """Its version and limits when found, else the reason."""
    install: str | None = None
    """What to install or set, for a person to type."""
