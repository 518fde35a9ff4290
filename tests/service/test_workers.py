"""Several gateway processes on one port: all serve, one that dies is replaced, none is left behind."""

import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import trio

from cynode_process import CYNODE

SECRET = "only-for-these-tests-0123456789-abcdefghij"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def gateway(dsn: str, place: Path, port: int, workers: int = 2) -> AsyncIterator["subprocess.Popen[bytes]"]:
    env = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": dsn,
        "JWT_SECRET": SECRET,
        "READY_REQUIRES": "database",
        "USER_GATEWAY_LISTEN_ADDR": f"127.0.0.1:{port}",
    }
    command = [CYNODE, "serve", "user-gateway", "--workers", str(workers)]
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(  # noqa: ASYNC220
            command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def until(what: Callable[[], bool]) -> None:
    with trio.fail_after(30):
        while not what():  # noqa: ASYNC110 - other processes ring no bell
            await trio.sleep(0.02)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def exists(pid: int) -> bool:
    """Runs still: one that ended stays a zombie where pid 1 reaps no orphans."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def listens(pid: int) -> bool:
    """Its loop runs: it waits in an epoll of its own."""
    try:
        return any(fd.readlink() == Path("anon_inode:[eventpoll]") for fd in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


async def ready_workers(process: "subprocess.Popen[bytes]", count: int) -> list[int]:
    await until(lambda: sum(map(listens, children(process.pid))) == count)
    return children(process.pid)


async def healthy(port: int) -> bool:
    """By a connection of its own, so that the kernel chooses who answers."""
    async with httpx.AsyncClient() as client:
        return (await client.get(f"http://127.0.0.1:{port}/readyz", timeout=20)).text == "ready"


async def test_all_serve_and_one_that_is_killed_comes_back(database: str, tmp_path: Path) -> None:
    port = free_port()
    async with gateway(database, tmp_path, port) as process:
        one, other = await ready_workers(process, 2)
        assert all([await healthy(port) for _ in range(20)])
        os.kill(one, signal.SIGKILL)
        await until(lambda: one not in children(process.pid) and len(children(process.pid)) == 2)
        assert other in children(process.pid)
        assert all([await healthy(port) for _ in range(20)])  # also those that the kernel gave to the dead one's socket
        process.terminate()
        with trio.fail_after(20):
            assert await trio.to_thread.run_sync(process.wait) == 0
        assert not any(map(exists, (one, other)))


async def test_none_outlives_a_killed_parent(database: str, tmp_path: Path) -> None:
    async with gateway(database, tmp_path, free_port()) as process:
        workers = await ready_workers(process, 2)
        process.kill()
        process.wait()
        await until(lambda: not any(map(exists, workers)))


async def test_a_port_in_use_is_told_before_anything_starts(database: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with gateway(database, tmp_path, port) as process:
            with trio.fail_after(20):
                assert await trio.to_thread.run_sync(process.wait) != 0
            assert "something else uses it" in (tmp_path / "log").read_text()


async def test_a_second_gateway_does_not_share_the_port_of_the_first(database: str, tmp_path: Path) -> None:
    port = free_port()
    async with gateway(database, tmp_path, port) as first:
        await ready_workers(first, 2)
        second = tmp_path / "second"
        second.mkdir()
        async with gateway(database, second, port) as process:
            with trio.fail_after(20):
                assert await trio.to_thread.run_sync(process.wait) != 0
            assert "something else uses it" in (second / "log").read_text()
