"""`python -m chaos.sick FAULT MODULE ARGUMENTS…`: runs a program with one promise broken, which does not know of it."""

import os
import runpy
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any


def fence_dropped() -> None:
    """A result counts whenever it comes, also beside that of a later attempt."""
    from orchestrator.domain import reports

    after_end = reports._after_end

    def counted(row: Any, fact: Any) -> Any:
        if not isinstance(fact, reports.Finished):
            return after_end(row, fact)
        row.outcome, row.exit_code, row.ended_at, row.stopped_at = fact.outcome, fact.exit_code, fact.at, fact.at
        return reports.Verdict.APPLIED, ""

    reports._after_end = counted


def ack_before_commit() -> None:
    from node_link import messages
    from orchestrator.links.session import Session

    commit = Session._commit

    async def early(self: Any, entries: list[Any]) -> None:
        position = max((position for position, _ in entries if position is not None), default=None)
        if position is not None:
            self._link.send(messages.Ack(spool_id=self._hello.spool_id, position=position + 1))
        await commit(self, entries)

    Session._commit = early  # type: ignore[method-assign]


def overlap_not_trimmed() -> None:
    from dataclasses import replace

    from orchestrator.domain import reports

    output = reports.Ledger._output

    def whole(self: Any, row: Any, fact: Any) -> Any:
        stored = row.stdout_length if fact.stream == "stdout" else row.stderr_length
        return output(self, row, replace(fact, offset=stored) if fact.offset < stored else fact)

    reports.Ledger._output = whole  # type: ignore[method-assign]


def spool_not_synced() -> None:
    """A sync does nothing: what is written stays in memory, as in a disk's cache, and reaches the file a while later.

    kill -9 alone would lose nothing, since the kernel keeps what was written; here it loses what a power cut would.
    """
    from node_agent import spool_files

    memory: dict[int, Any] = {}

    def create(*arguments: Any) -> Any:
        segment = real_create(*arguments)
        disk = segment.fd
        segment.fd = os.memfd_create("spool")
        os.pwrite(segment.fd, segment.path.read_bytes(), 0)
        memory[os.dup(segment.fd)] = disk  # a number of its own: the agent may close the other and use it anew
        return segment

    def write_back() -> None:
        while True:
            threading.Event().wait(3)
            for cached, disk in list(memory.items()):
                size = os.fstat(cached).st_size
                with suppress(OSError):  # a full disk
                    os.pwrite(disk, os.pread(cached, size, 0), 0)

    real_create = spool_files.create_segment  # type: ignore[attr-defined]
    spool_files.create_segment = create  # type: ignore[attr-defined, assignment]
    threading.Thread(target=write_back, daemon=True).start()


def kill_list_ignored() -> None:
    from node_agent.runner import Runner

    linked = Runner.linked

    def deaf(self: Any, *, draining: bool, kill: Sequence[Any]) -> None:  # noqa: ARG001 - that is the fault
        linked(self, draining=draining, kill=())

    Runner.linked = deaf  # type: ignore[method-assign]


FAULTS: dict[str, Callable[[], None]] = {
    "fence-dropped": fence_dropped,
    "ack-before-commit": ack_before_commit,
    "overlap-not-trimmed": overlap_not_trimmed,
    "spool-not-synced": spool_not_synced,
    "kill-list-ignored": kill_list_ignored,
}


if __name__ == "__main__":
    FAULTS[sys.argv[1]]()
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
