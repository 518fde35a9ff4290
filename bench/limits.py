"""What the machine itself does: commits, syncs, process starts. Measured beside what is compared with them."""

import asyncio
import os
import select
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import asyncpg
import psycopg

from bench.client import run_async
from bench.world import World

UNUSED_UID = 2_000_000_000


def commits_per_second(world: World, *, connections: int, rows: int, seconds: float = 4.0) -> float:
    """Rows a second that bare commits of `rows` small rows each store over so many connections."""
    with psycopg.connect(world.dsn, autocommit=True) as conn:
        conn.execute(b"CREATE TABLE IF NOT EXISTS bench_rows (id bigint, text text)")
    return run_async(_commits(world.dsn, connections, rows, seconds))


async def _commits(dsn: str, connections: int, rows: int, seconds: float) -> float:
    numbers = list(range(rows))
    done = 0
    links = [await asyncpg.connect(dsn) for _ in range(connections)]
    ends = time.perf_counter() + seconds

    async def work(link: "asyncpg.Connection[asyncpg.Record]") -> None:
        nonlocal done
        insert = await link.prepare("INSERT INTO bench_rows SELECT n, 'a short text' FROM unnest($1::bigint[]) n")
        while time.perf_counter() < ends:
            await insert.fetch(numbers)
            done += rows

    began = time.perf_counter()
    await asyncio.gather(*map(work, links))
    taken = time.perf_counter() - began
    for link in links:
        await link.close()
    return done / taken


def dispatch_floor(world: World, stamp: Path, count: int) -> list[float]:
    """Milliseconds of what no dispatch can do without: commit + NOTIFY, commit, sync, start of the job's program."""
    sender, receiver = world.connect(), world.connect()
    sender.execute(b"CREATE TABLE IF NOT EXISTS bench_rows (id bigint, text text)")
    receiver.execute(b"LISTEN bench")
    heard = select.poll()
    heard.register(receiver.fileno(), select.POLLIN)
    spool = os.open(world.folder / "floor", os.O_RDWR | os.O_CREAT)
    found = []
    for _ in range(count):
        began = time.monotonic_ns()
        with sender.transaction():
            sender.execute(b"INSERT INTO bench_rows VALUES (1, 'a short text')")
            sender.execute(b"NOTIFY bench")
        heard.poll(5000)
        list(receiver.notifies(timeout=0, stop_after=1))
        receiver.execute(b"INSERT INTO bench_rows VALUES (2, 'a short text')")
        os.write(spool, b"x" * 100)
        os.fdatasync(spool)
        found.append((_first_act(stamp) - began) / 1e6)
    os.close(spool)
    return found


def _first_act(program: Path) -> int:
    change = {"user": UNUSED_UID, "group": UNUSED_UID, "extra_groups": []} if os.geteuid() == 0 else {}
    started = subprocess.Popen([program], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, **change)  # type: ignore[call-overload]
    with started:
        return int(started.stdout.read())


def starts_per_second(argv: Sequence[str | Path], *, at_once: int, count: int, uid: bool = True) -> float:
    """Starts and ends of a program, each under another user where that can be, awaited by pidfd, so many at once."""
    waiting = select.epoll()
    running: dict[int, subprocess.Popen[bytes]] = {}
    started = 0
    began = time.perf_counter()
    while started < count or running:
        while started < count and len(running) < at_once:
            change = {}
            if uid and os.geteuid() == 0:
                number = UNUSED_UID + started % 1000
                change = {"user": number, "group": number, "extra_groups": []}
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                **change,  # type: ignore[call-overload]
            )
            pidfd = os.pidfd_open(child.pid)
            waiting.register(pidfd, select.EPOLLIN)
            running[pidfd] = child
            started += 1
        for pidfd, _ in waiting.poll():
            waiting.unregister(pidfd)
            os.close(pidfd)
            if running.pop(pidfd).wait():
                raise RuntimeError(f"{argv[0]} alone failed: {' '.join(map(str, argv))}")
    return count / (time.perf_counter() - began)
