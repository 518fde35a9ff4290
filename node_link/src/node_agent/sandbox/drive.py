"""The course of one run, the same in every runtime: start, output, time, stop, and nothing left behind."""

from types import MappingProxyType
from typing import Protocol

import trio

from node_agent.sandbox.process import CLEANUP_SECONDS, Child
from node_agent.sandbox.pump import Pump
from node_agent.sandbox.runtime import OnOutput, OnStarted, Stop
from node_agent.sandbox.spec import Ending, Outcome

START_SECONDS = 60.0
TIMEOUT_GRACE_SECONDS = 10.0
_COMPLAINT_BYTES = 4096


class Box(Protocol):
    """What differs between runtimes while a job runs."""

    @property
    def child(self) -> Child:
        """The process whose outputs and exit code are the job's."""

    async def wait_started(self) -> bool:
        """True once the job runs inside; False when it never will."""

    def has_started(self) -> bool:
        """Whether there is a proof of it by now; asked when waiting for it was broken off."""

    async def terminate(self) -> None:
        """SIGTERM to the job."""

    async def kill(self) -> None:
        """SIGKILL to all of the job; the child ends of it."""

    async def end(self) -> None:
        """The child has ended or must: leaves no process of the job. May be called twice."""


def not_started(why: str) -> Ending:
    return Ending("failed", started=False, error=f"sandbox_start: {why.strip() or 'no reason was given'}"[:2000])


async def drive(box: Box, timeout_seconds: float, on_started: OnStarted, on_output: OnOutput, stop: Stop) -> Ending:
    try:
        failure = await _start(box, stop)
        if failure is not None:
            return failure
        ends_at = trio.current_time() + timeout_seconds
        await on_started()
        return await _see_through(box, ends_at, on_output, stop)
    finally:
        with trio.move_on_after(3 * CLEANUP_SECONDS, shield=True):
            await box.end()
            await box.child.close()


async def _start(box: Box, stop: Stop) -> Ending | None:
    if box.has_started():
        return None
    started = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_when_asked, stop, nursery.cancel_scope)
        with trio.move_on_after(START_SECONDS) as waiting:
            started = await box.wait_started()
        nursery.cancel_scope.cancel()
    if started:
        return None
    await box.end()
    if box.has_started():
        return None
    if stop.outcome is not None:
        return Ending(stop.outcome, started=False)
    if waiting.cancelled_caught:
        return not_started(f"it did not start within {START_SECONDS:.0f} s")
    return not_started(await _complaint(box.child))


async def _cancel_when_asked(stop: Stop, scope: trio.CancelScope) -> None:
    await stop.wait_asked()
    scope.cancel()


async def _complaint(child: Child) -> str:
    """What a sandbox that did not start said."""
    said = b""
    with trio.move_on_after(1):
        while len(said) < _COMPLAINT_BYTES and (data := await child.stderr.receive_some(_COMPLAINT_BYTES)):
            said += data
    return said.decode(errors="replace")


async def _see_through(box: Box, ends_at: float, on_output: OnOutput, stop: Stop) -> Ending:
    pumps = (Pump("stdout", box.child.stdout, on_output), Pump("stderr", box.child.stderr, on_output))
    enforced = [stop.outcome] if stop.outcome is not None else []
    async with trio.open_nursery() as nursery:
        for pump in pumps:
            nursery.start_soon(pump.run)
        watch = trio.CancelScope()
        nursery.start_soon(_enforce, box, ends_at, stop, enforced, watch)
        await box.child.wait_ended()
        watch.cancel()
        await box.end()
        for pump in pumps:
            pump.finish_soon()
    code = box.child.reap()
    outcome: Outcome = enforced[0] if enforced else "completed" if code == 0 else "failed"
    return Ending(
        outcome,
        exit_code=code,
        total_bytes=MappingProxyType({pump.name: pump.cap.passed for pump in pumps}),
        truncated=MappingProxyType({pump.name: pump.cap.truncated for pump in pumps}),
    )


async def _enforce(box: Box, ends_at: float, stop: Stop, enforced: list[Outcome], watch: trio.CancelScope) -> None:
    """Ends the job when its time is over or somebody asked for it."""
    with watch:
        with trio.move_on_at(ends_at):
            await stop.wait_asked()
        if stop.outcome is None:
            stop.request("timeout", TIMEOUT_GRACE_SECONDS)
        assert stop.outcome is not None
        enforced.append(stop.outcome)
        await box.terminate()
        await stop.wait_grace_over()
        await box.kill()
