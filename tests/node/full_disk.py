"""Run by `test_spool_full_disk.py` in a mount namespace of its own: fills a real small disk. Prints what it saw."""

import json
import sys
import uuid
from pathlib import Path

import trio

from node_agent.bell import Bell
from node_agent.clock import Clock
from node_agent.reports import finished_fields
from node_agent.spool import Spool
from node_agent.spool_format import Kind, Ref


def ref() -> Ref:
    return Ref(uuid.uuid4().bytes, 1, uuid.uuid4().bytes)


def fill(path: Path) -> None:
    """Takes what is left of the disk, to the last byte."""
    with path.open("wb", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


async def main(folder: Path) -> None:
    durable = Bell()
    spool = Spool(folder / "spool", Clock(), bell=durable)
    attempts = [ref() for _ in range(20)]
    seen: dict[str, object] = {}
    async with trio.open_nursery() as nursery:
        await nursery.start(spool.run)
        await spool.take(attempts).wait()
        fill(folder / "filler")
        refused = spool.take([ref() for _ in range(40)])
        await refused.wait()
        seen["refused"] = len(refused.refused)
        with trio.move_on_after(0.5) as blocked:
            await spool.output(attempts[0], "stdout", 0, bytes(60_000), lambda: None)
        seen["output_blocked"] = blocked.cancelled_caught
        for one in attempts:
            spool.finished(one, lambda: finished_fields("failed", started=True, error="x" * 1000))
        with trio.fail_after(10):
            while spool.next_position < len(attempts):
                await durable.wait_rung()
        (folder / "filler").unlink()
        with trio.fail_after(10):
            await spool.output(ref(), "stdout", 0, bytes(60_000), lambda: None)
        seen["output_after_room"] = True
        nursery.cancel_scope.cancel()
    spool.close()
    again = Spool(folder / "spool", Clock())
    seen["ends"] = len(again.kept.finished)
    seen["unfinished"] = len(again.kept.unfinished)
    records = again.reader().read()
    seen["sent"] = [entry.kind.name for entry, _ in records].count(Kind.FINISHED.name)
    again.close()
    print(json.dumps(seen))  # noqa: T201


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
