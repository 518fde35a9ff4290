"""A runtime that runs nothing, for measuring the rest. Offered only where the node's configuration says so."""

from collections.abc import Collection
from pathlib import Path
from uuid import UUID

from node_agent.sandbox.runtime import OnOutput, OnStarted, Stop
from node_agent.sandbox.spec import Ending, JobToRun, RuntimeName


class NoopRuntime:
    name: RuntimeName = "noop"
    limits = False
    images = False

    async def prepare(self, job: JobToRun) -> None:
        """There is nothing to get."""

    async def run(
        self,
        job: JobToRun,  # noqa: ARG002
        folder: Path,  # noqa: ARG002
        mark: str,  # noqa: ARG002
        on_started: OnStarted,
        on_output: OnOutput,  # noqa: ARG002
        stop: Stop,
    ) -> Ending:
        if stop.outcome is not None:
            return Ending(stop.outcome, started=False)
        await on_started()
        return Ending("completed", exit_code=0)

    async def sweep(self, mark: str, keep: Collection[UUID]) -> list[str]:  # noqa: ARG002
        return []
