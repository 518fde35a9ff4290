"""A job in a container, by the command line of podman or docker.

The container's first process is a small shell of ours: it rings a bell (a FIFO in /job) as its first act, which proves
that the container started, passes SIGTERM on, which a first process would not get by default, and ends with the job's
exit code. So an image needs /bin/sh. The client that we start is not the container: it is ended by its id.
"""

import os
import signal
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import trio

from node_agent.sandbox.drive import drive, not_started
from node_agent.sandbox.engine import Engine, name_of
from node_agent.sandbox.folder import lay_out
from node_agent.sandbox.process import CLEANUP_SECONDS, Child, Command, Processes, Ran
from node_agent.sandbox.runtime import OnOutput, OnStarted, Stop
from node_agent.sandbox.spec import (
    ASSIGNMENT_MARK,
    STATE_MARK,
    Ending,
    JobToRun,
    Limits,
    NodeFault,
    PreparedInVain,
    RuntimeName,
)
from node_agent.sandbox.sweep import sweep_processes
from node_agent.sandbox.uids import Uids

_TOOL_SECONDS = 60.0
_CLIENT_SECONDS = 20.0
_AGAIN_SECONDS = 0.3
_INIT = b"""\
echo >/job/bell
trap 'kill -TERM -1' TERM
"$@" &
while :; do
    wait "$!"
    r=$?
    kill -0 "$!" 2>/dev/null || exit "$r"
done
"""


@dataclass(frozen=True)
class ContainerRuntime:
    engine: Engine
    processes: Processes
    uids: Uids
    default_limits: Limits
    default_image: str | None = None
    pull_seconds: float = 600.0
    limits: bool = False
    images: bool = True
    images_here: set[str] = field(default_factory=set)
    """Seen here by an earlier job: asking the engine costs nearly as much as a container."""

    @property
    def name(self) -> RuntimeName:
        return self.engine.name

    async def prepare(self, job: JobToRun) -> None:
        """Pulls the image unless it is here."""
        image = self._image(job)
        if image is None:
            raise NodeFault("image_pull: the job names no image and this node has no default one (NODE_DEFAULT_IMAGE)")
        if image in self.images_here:
            return
        try:
            if await self._is_here(image):
                return
            with trio.fail_after(self.pull_seconds):
                pulled = await self._run_engine(self.engine.pull(image))
        except trio.TooSlowError as error:
            raise NodeFault(f"image_pull: {image} did not come within {self.pull_seconds:.0f} s") from error
        except OSError as error:
            raise NodeFault(f"image_pull: {error}") from error
        if pulled.code != 0:
            raise NodeFault(f"image_pull: {image}: {pulled.stderr.strip()[-1500:]}")
        self.images_here.add(image)

    async def _is_here(self, image: str) -> bool:
        here = (await self._tool(self.engine.image_exists(image))).code == 0
        if here:
            self.images_here.add(image)
        else:
            self.images_here.discard(image)
        return here

    async def run(
        self, job: JobToRun, folder: Path, mark: str, on_started: OnStarted, on_output: OnOutput, stop: Stop
    ) -> Ending:
        if stop.outcome is not None:
            return Ending(stop.outcome, started=False)
        with self.uids.lend() as uid:
            try:
                box = self._start(job, folder, mark, uid)
            except OSError as error:
                return not_started(str(error))
            ending = await drive(box, job.timeout_seconds, on_started, on_output, stop)
        if not ending.started and stop.outcome is None:
            await self._check_image(job)
        return ending

    async def _check_image(self, job: JobToRun) -> None:
        """A container did not start: perhaps since somebody removed its image."""
        image = self._image(job)
        if image in self.images_here:
            with suppress(trio.TooSlowError, OSError):
                if not await self._is_here(image):
                    raise PreparedInVain(f"image_pull: {image} was removed before the container could start")

    async def sweep(self, mark: str, keep: Collection[UUID]) -> list[str]:
        listed = await self._tool(self.engine.list_marked(mark))
        kept = {name_of(assignment) for assignment in keep}
        left = [name for name in listed.stdout.split() if name not in kept]
        ended = [f"container {name}" for name in left]
        for name in left:
            removed = await self._tool(self.engine.remove(name))
            if removed.code != 0:
                ended.append(f"container {name} could not be removed: {removed.stderr.strip()[-300:]}")
        return ended + await sweep_processes(self.processes, self.uids, None, mark, keep)

    def _image(self, job: JobToRun) -> str | None:
        return job.image or self.default_image

    def _start(self, job: JobToRun, path: Path, mark: str, uid: int | None) -> "_Box":
        folder = lay_out(path, job, uid, in_folder=True)
        init = folder.job / "init"
        bell = folder.job / "bell"
        cidfile = folder.job / "cid"
        for old in (init, bell, cidfile):
            old.unlink(missing_ok=True)
        init.write_bytes(_INIT)
        init.chmod(0o555)
        os.mkfifo(bell, 0o600)
        if uid is not None:
            os.chown(bell, uid, uid)
        listening = os.open(bell, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        limits = job.limits.over(self.default_limits) if self.limits else Limits()
        argv = self.engine.run(job, self._image(job) or "", limits, folder, mark, uid)
        env = {**self.engine.env, STATE_MARK: mark, ASSIGNMENT_MARK: str(job.assignment_id)}
        try:
            child = self.processes.start(Command(argv, env))
        except OSError:
            os.close(listening)
            raise
        return _Box(child, self, cidfile, name_of(job.assignment_id), bell, listening)

    async def _tool(self, argv: Sequence[str]) -> Ran:
        with trio.fail_after(_TOOL_SECONDS):
            return await self._run_engine(argv)

    async def _run_engine(self, argv: Sequence[str]) -> Ran:
        return await self.processes.run_tool(Command(argv, self.engine.env))

    async def signal(self, container: str, number: str) -> None:
        with suppress(trio.TooSlowError, OSError):
            await self._tool(self.engine.kill(container, number))

    async def remove(self, container: str) -> None:
        with suppress(trio.TooSlowError, OSError):
            await self._tool(self.engine.remove(container))


class _Box:
    def __init__(
        self, child: Child, runtime: ContainerRuntime, cidfile: Path, name: str, bell: Path, listening: int
    ) -> None:
        self.child = child
        self._runtime = runtime
        self._cidfile = cidfile
        self._name = name
        self._bell = bell
        self._listening = listening
        self._rang = False
        self._interrupted = False
        self._ended = False

    async def wait_started(self) -> bool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._until_client_ends, nursery.cancel_scope)
            await trio.lowlevel.wait_readable(self._listening)
            nursery.cancel_scope.cancel()
        return self.has_started()

    async def _until_client_ends(self, scope: trio.CancelScope) -> None:
        await self.child.wait_ended()
        scope.cancel()

    def has_started(self) -> bool:
        if not self._rang and self._listening >= 0:
            with suppress(BlockingIOError):
                self._rang = os.read(self._listening, 16) != b""
        return self._rang

    async def terminate(self) -> None:
        self._interrupted = True
        await self._runtime.signal(self._container(), "TERM")

    async def kill(self) -> None:
        """Removes the container until the client has ended of it.

        A client that were killed while it starts a container would leave conmon behind, which no removal ends then.
        """
        self._interrupted = True
        with trio.move_on_after(_CLIENT_SECONDS):
            while not self.child.has_ended():
                await self._runtime.remove(self._container())
                with trio.move_on_after(_AGAIN_SECONDS):
                    while not self.child.has_ended():  # noqa: ASYNC110  # its pidfd has a waiter already
                        await trio.sleep(0.01)
        self.child.signal_group(signal.SIGKILL)

    async def end(self) -> None:
        if self._ended:
            return
        self._ended = True
        with trio.move_on_after(3 * CLEANUP_SECONDS, shield=True):
            if not self.child.has_ended():
                await self.kill()
                await self.child.wait_ended()
            code = self.child.reap()
            # --rm has removed it, unless the client was interrupted or failed itself.
            if self._interrupted or not self.has_started() or code >= 125:
                await self._runtime.remove(self._container())
            self._runtime.processes.reap_adopted()
        self.has_started()
        if self._listening >= 0:
            os.close(self._listening)
            self._listening = -1
        for path in (self._bell, self._cidfile):
            path.unlink(missing_ok=True)

    def _container(self) -> str:
        """Its id, or its name as long as the engine has not written the id."""
        with suppress(OSError):
            return self._cidfile.read_text().strip() or self._name
        return self._name
