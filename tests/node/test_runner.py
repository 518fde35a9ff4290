"""The runner with a runtime that does what the test says, and a real spool."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import trio
import trio.testing

from node.fake_server import assignment
from node_agent.bell import Bell
from node_agent.clock import Clock
from node_agent.config import load
from node_agent.outbox import Outbox
from node_agent.reports import frames
from node_agent.runner import Runner
from node_agent.sandbox.noop import NoopRuntime
from node_agent.sandbox.runtime import OnOutput, OnStarted, Stop
from node_agent.sandbox.spec import Ending, JobToRun, NodeFault, PreparedInVain, RuntimeName
from node_agent.spool import Spool
from node_link.codec import decode, records
from node_link.messages import (
    Assignment,
    Cancellation,
    CancelReason,
    FinishedRecord,
    JobsFinished,
    JobsOutput,
    Message,
    OutputRecord,
)

Body = Callable[[OnStarted, OnOutput, Stop], Awaitable[Ending]]
CONFIG = replace(load({"NODE_SLUG": "n1", "NODE_SLOTS": "1", "NODE_PREFETCH": "2"}), default_image="base")


class Scripted(NoopRuntime):
    """`prepare` and `run` are the test's."""

    name: RuntimeName = "podman"
    images = True

    def __init__(self) -> None:
        self.preparing: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        self.body: Body = self._nothing
        self.running = 0

    async def _nothing(self, on_started: OnStarted, on_output: OnOutput, stop: Stop) -> Ending:  # noqa: ARG002
        await on_started()
        return Ending("completed", exit_code=0)

    async def prepare(self, job: JobToRun) -> None:  # noqa: ARG002
        await self.preparing()

    async def run(
        self,
        job: JobToRun,  # noqa: ARG002
        folder: Path,  # noqa: ARG002
        mark: str,  # noqa: ARG002
        on_started: OnStarted,
        on_output: OnOutput,
        stop: Stop,
    ) -> Ending:
        self.running += 1
        try:
            return await self.body(on_started, on_output, stop)
        finally:
            self.running -= 1


class Bench:
    def __init__(self, folder: Path) -> None:
        self.output: list[OutputRecord] = []
        self.bell = Bell()
        self.outbox = Outbox(self.bell)
        self.outbox.open()
        self.spool = Spool(folder / "spool", Clock(), bell=self.bell)
        self.runtime = Scripted()
        self.runner = Runner(CONFIG, self.spool, self.outbox, "mark", folder / "mounts", self._removed)
        self.runner.offered = {"podman": self.runtime}
        self._reader = self.spool.reader()

    async def _removed(self, paths: Sequence[Path]) -> Sequence[Path]:
        assert not any(path.exists() for path in paths), "no folder was made"
        return ()

    def assign(self) -> Assignment:
        job = Assignment.model_validate(assignment("podman"))
        self.runner.assign([job])
        return job

    def cancel(self, job: Assignment, reason: CancelReason) -> None:
        ref = {"job_id": job.job_id, "attempt": job.attempt, "assignment_id": job.assignment_id}
        self.runner.cancel([Cancellation(**ref, reason=reason, grace_seconds=0)])

    async def said(self) -> Message:
        with trio.fail_after(5):
            while (message := self.outbox.take()) is None:
                await self.bell.wait_rung()
            return message

    async def finished(self) -> FinishedRecord:
        with trio.fail_after(5):
            while True:
                for _, text in frames(self._reader.read()):
                    message = decode(text)
                    if isinstance(message, JobsOutput):
                        self.output += [one for one in records(message) if isinstance(one, OutputRecord)]
                    if isinstance(message, JobsFinished):
                        (record,) = records(message)
                        assert isinstance(record, FinishedRecord)
                        return record
                await self.bell.wait_rung()


@asynccontextmanager
async def open_bench(folder: Path) -> AsyncIterator[Bench]:
    bench = Bench(folder)
    async with trio.open_nursery() as nursery:
        await nursery.start(bench.spool.run)
        nursery.start_soon(bench.runner.run)
        yield bench
        nursery.cancel_scope.cancel()
    bench.spool.close()


async def test_nothing_is_accepted_before_it_is_on_disk(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.runner.run)
        bench.assign()
        await trio.testing.wait_all_tasks_blocked()
        assert bench.outbox.take() is None
        assert bench.runner.held() == ()
        await nursery.start(bench.spool.run)
        assert (await bench.said()).type == "jobs.accepted"
        assert len(bench.runner.held()) == 1
        nursery.cancel_scope.cancel()
    bench.spool.close()


async def test_a_fault_of_the_node_says_that_nothing_was_started(tmp_path: Path) -> None:
    async def no_image() -> None:
        raise NodeFault("image_pull: no such image")

    async with open_bench(tmp_path) as bench:
        bench.runtime.preparing = no_image
        bench.assign()
        record = await bench.finished()
        assert (record.outcome, record.started, record.error) == ("failed", False, "image_pull: no such image")


async def test_what_was_prepared_and_is_gone_is_prepared_again_once(tmp_path: Path) -> None:
    async with open_bench(tmp_path) as bench:
        prepared, gone = [], [True, False, True, True]

        async def prepare() -> None:
            prepared.append("an image")

        async def body(on_started: OnStarted, _on_output: OnOutput, _stop: Stop) -> Ending:
            if gone.pop(0):
                raise PreparedInVain("image_pull: it was removed")
            await on_started()
            return Ending("completed", exit_code=0)

        bench.runtime.preparing, bench.runtime.body = prepare, body
        bench.assign()
        assert (await bench.finished()).outcome == "completed"
        bench.assign()
        record = await bench.finished()
        assert (record.outcome, record.started, record.error) == ("failed", False, "image_pull: it was removed")
        assert len(prepared) == 4


async def test_a_fault_of_the_agent_ends_one_job_and_not_the_slot(tmp_path: Path) -> None:
    async def bug(on_started: OnStarted, on_output: OnOutput, stop: Stop) -> Ending:  # noqa: ARG001
        await on_started()
        raise ZeroDivisionError("a bug")

    async with open_bench(tmp_path) as bench:
        usual, bench.runtime.body = bench.runtime.body, bug
        bench.assign()
        record = await bench.finished()
        assert (record.outcome, record.started) == ("failed", True)
        assert "a bug" in (record.error or "")
        bench.runtime.body = usual
        bench.assign()
        assert (await bench.finished()).outcome == "completed"


async def test_a_recall_while_an_image_is_pulled_hands_back(tmp_path: Path) -> None:
    async with open_bench(tmp_path) as bench:
        bench.runtime.preparing = trio.sleep_forever
        job = bench.assign()
        await bench.said()
        await trio.testing.wait_all_tasks_blocked(0.01)
        bench.cancel(job, "recall")
        record = await bench.finished()
        assert (record.outcome, record.started) == ("handed_back", False)


async def test_a_cancel_before_the_sync_ends_it_without_a_start(tmp_path: Path) -> None:
    async with open_bench(tmp_path) as bench:
        job = bench.assign()
        bench.cancel(job, "canceled")
        record = await bench.finished()
        assert (record.outcome, record.started) == ("canceled", False)
        assert bench.runner.free_slots() == 3


async def test_one_slot_runs_one_job_and_the_others_wait(tmp_path: Path) -> None:
    gate, most = trio.Semaphore(0), [0]

    async def body(on_started: OnStarted, on_output: OnOutput, stop: Stop) -> Ending:  # noqa: ARG001
        await on_started()
        most.append(bench.runtime.running)
        await gate.acquire()
        return Ending("completed", exit_code=0)

    async with open_bench(tmp_path) as bench:
        bench.runtime.body = body
        jobs = [bench.assign() for _ in range(3)]
        assert (bench.runner.free_slots(), bench.runner.held()) == (3, ())  # not named yet, so not counted here
        rejected = bench.assign()
        assert (await bench.said()).type == "jobs.rejected"
        assert (await bench.said()).type == "jobs.accepted"
        assert bench.runner.free_slots() == 0
        assert rejected.assignment_id not in {one.assignment_id for one in bench.runner.held()}
        ended = []
        for _ in jobs:
            gate.release()
            ended.append((await bench.finished()).assignment_id)
        assert ended == [job.assignment_id for job in jobs]
        assert max(most) == 1


async def test_output_given_up_in_mid_write_is_counted_as_it_is_on_disk(tmp_path: Path) -> None:
    async def body(on_started: OnStarted, on_output: OnOutput, stop: Stop) -> Ending:  # noqa: ARG001
        await on_started()
        await on_output("stdout", 0, b"kept")
        with trio.CancelScope() as scope:
            scope.cancel()
            await on_output("stdout", 4, b"given up")
        await on_output("stdout", 12, b"behind the hole")
        return Ending("timeout")

    async with open_bench(tmp_path) as bench:
        bench.runtime.body = body
        bench.assign()
        record = await bench.finished()
        spooled = sum(len(one.data) for one in bench.output)
        assert record.total_bytes.stdout == spooled  # the piece given up is in it whole, or not at all
        assert spooled in (4, 12, 27)
        assert record.truncated.stdout == (spooled < 27)


async def test_close_hands_back_all_and_takes_nothing_more(tmp_path: Path) -> None:
    async def body(on_started: OnStarted, on_output: OnOutput, stop: Stop) -> Ending:  # noqa: ARG001
        await on_started()
        await stop.wait_asked()
        assert stop.outcome is not None
        return Ending(stop.outcome)

    async with open_bench(tmp_path) as bench:
        bench.runtime.body = body
        bench.assign()
        assert (await bench.said()).type == "jobs.accepted"
        await trio.testing.wait_all_tasks_blocked(0.01)
        bench.runner.close()
        with trio.fail_after(5):
            await bench.runner.wait_idle()
        record = await bench.finished()
        assert (record.outcome, record.started) == ("handed_back", True)
        bench.assign()
        message: Any = await bench.said()
        assert message.jobs[0].reason == "draining"
