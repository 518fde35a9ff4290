"""From an assignment to its end in the spool: taken (synced) → accepted → prepared → started → output → finished.

What the link says is handled at once and without waiting; the spool says when assignments are taken; one child a slot
runs jobs, and one removes the folders of jobs whose end the server has.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from math import inf
from pathlib import Path
from uuid import UUID

import trio

from node_agent.attempts import Attempt, Attempts, Stage
from node_agent.choose import Chosen, Refused, choose
from node_agent.config import NodeConfig
from node_agent.job_run import JobRun, end_of
from node_agent.outbox import Outbox
from node_agent.sandbox.runtime import Runtime
from node_agent.sandbox.spec import Ending, InvalidSpec, NodeFault, Outcome, RuntimeName, parse_spec
from node_agent.spool import Spool
from node_agent.spool_format import Ref
from node_agent.spool_items import Ticket
from node_link.messages import (
    Assignment,
    AttemptRef,
    Cancellation,
    CancelReason,
    HeldAttempt,
    JobsAccepted,
    JobsRejected,
    Rejection,
    RejectReason,
)

log = logging.getLogger("cynode.node.runner")

STOP_GRACE_SECONDS = 2.0
"""Between SIGTERM and SIGKILL when the agent stops, or is told to stop all."""
MOST_AT_ONCE = 64
"""Folders that are removed together."""
MOST_IN_A_ROW = 32
"""Jobs that a slot takes without letting others run, if the jobs themselves never wait."""
_OUTCOMES: Mapping[CancelReason, Outcome] = {
    "canceled": "canceled",
    "fenced": "canceled",
    "timeout": "timeout",
    "recall": "handed_back",
}
RemoveFolders = Callable[[Sequence[Path]], Awaitable[Sequence[Path]]]
"""Returns those that could not be removed."""


class Runner:
    def __init__(
        self,
        config: NodeConfig,
        spool: Spool,
        outbox: Outbox,
        state_id: str,
        mounts: Path,
        remove: RemoveFolders,
    ) -> None:
        self._config = config
        self._spool = spool
        self._outbox = outbox
        self._mounts = mounts
        self._job = JobRun(spool, state_id, mounts)
        self._remove = remove
        self._to_take: list[Attempt] = []
        self._queue_in, self._queue_out = trio.open_memory_channel[Attempt](inf)  # bounded by slots + prefetch
        self._folders_in, self._folders_out = trio.open_memory_channel[Path](inf)  # bounded likewise
        self._draining = False
        self._stopped = False
        self._closing = False
        self._changed = trio.Event()
        self.attempts = Attempts()
        self.offered: Mapping[RuntimeName, Runtime] = {}
        self.max_timeout_seconds = inf
        """From the orchestrator's configuration."""

    # what the agent and the link ask

    @property
    def accepting(self) -> bool:
        return not (self._draining or self._stopped or self._closing)

    def free_slots(self) -> int:
        """Beyond the attempts that `held` names: the server itself counts those that are not named yet."""
        most = self._config.slots + self._config.prefetch
        return max(0, most - self.attempts.open + self.attempts.taking) if self.accepting else 0

    def held(self) -> tuple[HeldAttempt, ...]:
        return self.attempts.held()

    async def wait_idle(self) -> None:
        """Until nothing runs or waits to."""
        while self.attempts.open:
            if self._changed.is_set():
                self._changed = trio.Event()
            await self._changed.wait()

    # what the server says

    def linked(self, *, draining: bool, kill: Sequence[AttemptRef]) -> None:
        """A welcome: what it does not want any more ends."""
        self._stopped = False
        self._draining = draining
        for ref in kill:
            attempt = self.attempts.get(ref.assignment_id)
            if attempt is not None and attempt.stage is not Stage.FINISHED:
                self._stop(attempt, "canceled", STOP_GRACE_SECONDS)

    def link_ended(self) -> None:
        self.attempts.link_ended()

    def drain(self, *, draining: bool) -> None:
        self._draining = draining

    def stop_all(self) -> None:
        """Everything is handed back, and nothing taken until the next hello."""
        self._stopped = True
        for attempt in self.attempts:
            if attempt.stage is not Stage.FINISHED:
                self._stop(attempt, "handed_back", STOP_GRACE_SECONDS)

    def close(self) -> None:
        """The agent stops: as `stop_all`, for good."""
        self._closing = True
        self.stop_all()

    def hand_back_open(self) -> None:
        """After everything was ended: what has no end yet is handed back."""
        for attempt in self.attempts:
            if attempt.stage is not Stage.FINISHED:
                self._finish(attempt, Ending("handed_back", started=attempt.stage >= Stage.STARTING))

    def acknowledged(self, over: Sequence[Ref]) -> None:
        """The server has these attempts' ends."""
        for ref in over:
            attempt = self.attempts.forget(_assignment_id(ref))
            if attempt is None:
                continue
            self.attempts.settle(attempt.assignment_id, None)
            if attempt.chosen is None or attempt.chosen.runtime.name != "noop":
                self.remove_folder(self._mounts / str(attempt.assignment_id))

    def remove_folder(self, path: Path) -> None:
        self._folders_in.send_nowait(path)

    def assign(self, jobs: Sequence[Assignment]) -> None:
        """Each is answered: accepted once it is durable, accepted again if it is held, or rejected with the reason."""
        rejected = []
        again = []
        for job in jobs:
            attempt = self.attempts.get(job.assignment_id)
            if attempt is not None:
                if attempt.stage is not Stage.TAKING:
                    again.append(attempt.wire())
            elif self.attempts.is_settled(job.assignment_id):
                if reason := self.attempts.settled_reason(job.assignment_id):
                    rejected.append(_rejection(job, reason, None))
            elif rejection := self._consider(job):
                self.attempts.settle(job.assignment_id, rejection.reason)
                rejected.append(rejection)
        self._take()
        if again:
            self._outbox.post(JobsAccepted(jobs=tuple(again)))
        self._reject(rejected)

    def cancel(self, jobs: Sequence[Cancellation]) -> None:
        """Held: it ends, and its end is the answer. Not held: rejected at once, and never started on this link."""
        unknown = []
        for job in jobs:
            attempt = self.attempts.get(job.assignment_id)
            if attempt is None:
                self.attempts.settle(job.assignment_id, "canceled")
                unknown.append(_rejection(job, "canceled", None))
            elif job.reason == "recall" and attempt.stage >= Stage.STARTING:
                pass  # its `started` is the answer
            elif attempt.stage is not Stage.FINISHED:
                self._stop(attempt, _OUTCOMES[job.reason], job.grace_seconds)
        self._reject(unknown)

    def _reject(self, rejected: Sequence[Rejection]) -> None:
        if rejected:
            self._outbox.post(JobsRejected(jobs=tuple(rejected)))

    def _consider(self, job: Assignment) -> Rejection | None:
        """Takes it, or says why not."""
        if not self.accepting:
            return _rejection(job, "draining", None)
        if self.attempts.open >= self._config.slots + self._config.prefetch:
            return _rejection(job, "busy", None)
        try:
            chosen = choose(parse_spec(job), self.offered, self._config, self.max_timeout_seconds)
        except InvalidSpec as error:
            return _rejection(job, "invalid", str(error))
        except Refused as refused:
            return _rejection(job, refused.reason, str(refused))
        ref = Ref.of(job.job_id, job.attempt, job.assignment_id)
        attempt = Attempt(job.assignment_id, ref, chosen, Stage.TAKING)
        self.attempts.add(attempt)
        self._to_take.append(attempt)
        return None

    def _stop(self, attempt: Attempt, outcome: Outcome, grace_seconds: float) -> None:
        attempt.stop.request(outcome, grace_seconds)
        if attempt.stage is Stage.TAKEN:
            self._finish(attempt, Ending(attempt.stop.outcome or outcome, started=False))

    # the children

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._remove_folders)
            for _ in range(self._config.slots):
                nursery.start_soon(self._work)

    def _take(self) -> None:
        """Of one frame together; the spool writes all that came while a sync is under way with the next."""
        batch, self._to_take = self._to_take, []
        if batch:
            ticket = self._spool.take([attempt.ref for attempt in batch])
            ticket.when_settled = partial(self._settled, batch)

    def _settled(self, batch: Sequence[Attempt], ticket: Ticket) -> None:
        """They are on disk, but for those that found no room."""
        batch = [attempt for attempt in batch if attempt.stage is Stage.TAKING]  # an agent that stops ends some before
        self._taken([attempt for attempt in batch if attempt.ref.assignment_id not in ticket.refused])
        if ticket.refused:
            self._no_room([attempt for attempt in batch if attempt.ref.assignment_id in ticket.refused])

    def _taken(self, batch: Sequence[Attempt]) -> None:
        if batch:
            self._outbox.post(JobsAccepted.model_construct(jobs=tuple(attempt.wire() for attempt in batch)))
        for attempt in batch:
            attempt.stage = Stage.TAKEN
            if (outcome := attempt.early_outcome()) is not None:
                self._finish(attempt, Ending(outcome, started=False))
            else:
                self._queue_in.send_nowait(attempt)

    def _no_room(self, batch: Sequence[Attempt]) -> None:
        """The spool is full, so an end could not be kept: nothing is taken."""
        rejected = []
        for attempt in batch:
            reason: RejectReason = "busy" if attempt.early_outcome() is None else "canceled"
            self.attempts.forget(attempt.assignment_id)
            self.attempts.settle(attempt.assignment_id, reason)
            rejected.append(_rejection(attempt.wire(), reason, "no room in the node's spool"))
        self._reject(rejected)
        self._notify()

    async def _work(self) -> None:
        """One slot."""
        async for attempt in self._queue_out:
            await self._run_taken(attempt)
            with suppress(trio.WouldBlock):
                for _ in range(MOST_IN_A_ROW):
                    await self._run_taken(self._queue_out.receive_nowait())

    async def _run_taken(self, attempt: Attempt) -> None:
        if attempt.stage is Stage.TAKEN and attempt.chosen is not None:
            attempt.stage = Stage.PREPARING
            self._finish(attempt, await self._run_one(attempt, attempt.chosen))

    async def _run_one(self, attempt: Attempt, chosen: Chosen) -> Ending:
        try:
            return await self._job.run(attempt, chosen)
        except NodeFault as fault:
            return Ending("failed", started=False, error=str(fault))
        except Exception as error:
            log.exception("job ended by a fault of the agent", extra={"job_id": str(chosen.job.job_id)})
            return Ending("failed", started=attempt.stage is Stage.RUNNING, error=f"node_error: {_root(error)!r}")

    def _finish(self, attempt: Attempt, ending: Ending) -> None:
        self.attempts.finish(attempt)
        self._spool.finished(attempt.ref, partial(end_of, attempt, ending))
        self._notify()

    def _notify(self) -> None:
        self._changed.set()

    async def _remove_folders(self) -> None:
        """Of attempts whose end the server has; until then what a job left can be looked at."""
        async for folder in self._folders_out:
            folders = [folder]
            with suppress(trio.WouldBlock):
                while len(folders) < MOST_AT_ONCE:
                    folders.append(self._folders_out.receive_nowait())
            for left in await self._remove(folders):
                log.warning("the folder of an ended job could not be removed: %s", left)


def _assignment_id(ref: Ref) -> UUID:
    return UUID(bytes=ref.assignment_id)


def _rejection(job: AttemptRef, reason: RejectReason, detail: str | None) -> Rejection:
    return Rejection(
        job_id=job.job_id,
        attempt=job.attempt,
        assignment_id=job.assignment_id,
        reason=reason,
        detail=detail[:2000] if detail else None,
    )


def _root(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
