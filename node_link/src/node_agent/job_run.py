"""One attempt in its sandbox, and what of it goes to the spool."""

from pathlib import Path

import trio

from node_agent.attempts import Attempt, Stage
from node_agent.choose import Chosen
from node_agent.reports import finished_fields, started_fields
from node_agent.sandbox.spec import Ending, NodeFault, PreparedInVain
from node_agent.spool import Spool
from node_link.messages import Stream


class JobRun:
    def __init__(self, spool: Spool, state_id: str, mounts: Path) -> None:
        self._spool = spool
        self._state_id = state_id
        self._mounts = mounts

    async def run(self, attempt: Attempt, chosen: Chosen) -> Ending:
        """To its end. Raises NodeFault when this node could not do its part."""
        try:
            return await self._run_once(attempt, chosen)
        except PreparedInVain:
            attempt.stage = Stage.PREPARING
            return await self._run_once(attempt, chosen)

    async def _run_once(self, attempt: Attempt, chosen: Chosen) -> Ending:
        if chosen.runtime.images:
            await self._prepare(attempt, chosen)
        if (outcome := attempt.early_outcome()) is not None:
            return Ending(outcome, started=False)
        attempt.stage = Stage.STARTING
        return await self._run_in_sandbox(attempt, chosen)

    async def _prepare(self, attempt: Attempt, chosen: Chosen) -> None:
        """Given up when the attempt is stopped meanwhile."""
        fault: NodeFault | None = None
        async with trio.open_nursery() as nursery:

            async def give_up() -> None:
                await attempt.stop.wait_asked()
                nursery.cancel_scope.cancel()

            nursery.start_soon(give_up)
            try:
                await chosen.runtime.prepare(chosen.job)
            except NodeFault as error:
                fault = error
            nursery.cancel_scope.cancel()
        if fault is not None:
            raise fault

    async def _run_in_sandbox(self, attempt: Attempt, chosen: Chosen) -> Ending:
        name = chosen.runtime.name

        async def on_started() -> None:
            attempt.stage = Stage.RUNNING
            self._spool.started(attempt.ref, started_fields(name))

        async def on_output(stream: Stream, byte_offset: int, data: bytes) -> None:
            await self._keep_output(attempt, stream, byte_offset, data)

        folder = self._mounts / str(attempt.assignment_id)
        return await chosen.runtime.run(chosen.job, folder, self._state_id, on_started, on_output, attempt.stop)

    async def _keep_output(self, attempt: Attempt, stream: Stream, byte_offset: int, data: bytes) -> None:
        if attempt.is_cut(stream):
            return

        def written() -> None:
            attempt.sent[stream] = byte_offset + len(data)

        try:
            await self._spool.output(attempt.ref, stream, byte_offset, data, written)
        except trio.Cancelled:
            attempt.cut(stream)
            raise


def end_of(attempt: Attempt, ending: Ending) -> bytes:
    """The fields of its finished record, as they are when the record is written."""
    return finished_fields(
        ending.outcome,
        started=ending.started,
        exit_code=ending.exit_code,
        total_bytes=attempt.sent if ending.started else None,
        truncated=attempt.truncated(ending) if ending.started else None,
        error=ending.error,
    )
