"""What an earlier run of the agent left: its sandboxes are ended, then its attempts are reported."""

import logging
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from pathlib import Path
from uuid import UUID

import trio

from node_agent.attempts import Attempt, Attempts, Stage
from node_agent.reports import finished_fields
from node_agent.sandbox.folder import JOB
from node_agent.sandbox.runtime import Runtime
from node_agent.spool import Spool
from node_agent.spool_format import Ref

log = logging.getLogger("cynode.node.sweep")

PERIOD_SECONDS = 30.0


class Running(Collection[UUID]):
    """The assignments that may have a sandbox, as they are at each look: a job that begins during a sweep is kept."""

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts

    def __iter__(self) -> Iterator[UUID]:
        return (one.assignment_id for one in self._attempts if one.stage is not Stage.FINISHED)

    def __contains__(self, assignment_id: object) -> bool:
        return assignment_id in set(self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


async def sweep(runtimes: Iterable[Runtime], state_id: str, keep: Collection[UUID]) -> list[str]:
    """Ends whatever bears our mark and is not kept."""
    ended = []
    for runtime in runtimes:
        try:
            ended += await runtime.sweep(state_id, keep)
        except (OSError, trio.TooSlowError) as error:
            log.error("the sweep of %s failed: %s", runtime.name, error)
            ended.append(f"{runtime.name} could not be swept: {error}")
    for line in ended:
        log.warning("ended what was left: %s", line)
    return ended


def report_lost(spool: Spool, attempts: Attempts) -> None:
    """Every attempt that was taken and has no end on disk is lost, and never run again."""
    kept = spool.kept
    for _, ref in kept.finished.values():
        attempts.add(_finished(ref))
    for key, ref in kept.unfinished.items():
        sent = kept.sent.get(key)
        spool.finished(
            ref, partial(finished_fields, "lost", started=True, total_bytes=sent, error="the node agent was restarted")
        )
        attempts.add(_finished(ref))
        log.warning("lost by a restart", extra={"job_id": str(UUID(bytes=ref.job_id)), "attempt": ref.attempt})


def _finished(ref: Ref) -> Attempt:
    return Attempt(UUID(bytes=ref.assignment_id), ref, None, Stage.FINISHED)


def stale_folders(mounts: Path, attempts: Attempts) -> list[Path]:
    """Folders of attempts that nobody asks for any more."""
    if not mounts.exists():
        return []
    held = {str(one.assignment_id) for one in attempts}
    names = {path.name.removesuffix(JOB) for path in mounts.iterdir()}
    return [mounts / name for name in sorted(names - held)]
