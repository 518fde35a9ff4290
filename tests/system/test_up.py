"""`cynode up` as a process: one folder, killed and started again, stopped by Ctrl-C."""

import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from postgres_fixture import in_memory, open_folder
from real_process import Process, Processes, is_alive, open_processes, wait_gone
from world import BIN, Gate

ADDRESSES = {"USER_GATEWAY_LISTEN_ADDR": "127.0.0.1:0", "CONTROL_PLANE_LISTEN_ADDR": "127.0.0.1:0"}


class Up:
    """A state folder whose path has a space, and what runs on it."""

    def __init__(self, folder: Path, processes: Processes) -> None:
        self.state = folder / "a state"
        self.folder = folder
        self._processes = processes
        self.url = ""

    def environment(self, **more: str) -> dict[str, str]:
        own = {"HOME": str(self.folder), "XDG_CONFIG_HOME": str(self.folder / "config"), "NODE_RUNTIME": "process"}
        return {"PATH": os.environ["PATH"], "NODE_ALLOW_PROCESS": "1", **own, **ADDRESSES, **more}

    def start(self, **more: str) -> Process:
        command = [BIN / "cynode", "up", "--state-dir", self.state]
        return self._processes.start(command, self.environment(**more))

    async def ready(self, **more: str) -> Process:
        process = self.start(**more)
        await process.wait_said(r"\nready\n", seconds=40)
        found = await process.wait_said(r"user-gateway +ready +(\S+)")
        self.url = found[1]
        return process

    async def client(self, *words: str) -> Process:
        return self._processes.start([BIN / "cynode", *words], self.environment(CYNODE_GATEWAY_URL=self.url))

    async def run(self, *words: str) -> str:
        process = await self.client(*words)
        code = await process.wait(30)
        assert code == 0, process.said
        return process.said

    async def node(self) -> Any:
        """What its own node says of itself."""
        command = [BIN / "cynode-node", "status", "--json"]
        process = self._processes.start(command, self.environment(NODE_STATE_DIR=str(self.state / "node")))
        await process.wait()
        return json.loads(process.said)

    async def log_in(self) -> None:
        password = (self.state / "admin-password").read_text().strip()
        async with httpx.AsyncClient(trust_env=False, base_url=self.url) as client:
            answer = await client.post("/v1/auth/login", json={"handle": "admin", "password": password})
            self.token = answer.json()["access_token"]

    def api(self) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.AsyncClient(trust_env=False, base_url=self.url, headers=headers, timeout=70)

    def pids(self) -> dict[str, int]:
        postgres = int((self.state / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
        return {"postgres": postgres, "node": node_of(int((self.state / "lock").read_text()))}


def node_of(parent: int) -> int:
    """The node agent that this process started."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            said = (stat.parent / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == parent and b"node_agent" in said:
            return int(stat.parent.name)
    raise AssertionError("no node agent")


@pytest.fixture
async def up() -> AsyncIterator[Up]:
    with open_folder(in_memory()) as folder:
        async with open_processes() as processes:
            yield Up(folder, processes)


async def submit(client: httpx.AsyncClient, script: str, **job: object) -> str:
    answer = await client.post("/v1/tasks", json={"prompt": script, "input_mode": "script", "job": job})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def wait_output(client: httpx.AsyncClient, task: str) -> str:
    with trio.fail_after(30):
        while not (said := (await client.get(f"/v1/tasks/{task}/logs")).json()["stdout"]):  # noqa: ASYNC110
            await trio.sleep(0.05)
    return str(said)


async def test_killed_it_takes_all_along_and_comes_back_with_nothing_lost(up: Up) -> None:
    gate = Gate(up.folder / "gate")
    process = await up.ready()
    await up.log_in()
    async with up.api() as client:
        ended = await submit(client, "echo kept")
        assert (await client.get(f"/v1/tasks/{ended}/result?wait=30")).json()["status"] == "completed"
        running = await submit(client, f"echo $$; {gate.wait}; echo done")
        job = int(await wait_output(client, running))
        waiting = [await submit(client, "echo later", requires={"labels": {"no": "such"}}) for _ in range(3)]
    pids = up.pids()
    assert is_alive(job)
    await process.kill()
    for pid in pids.values():
        await wait_gone(pid)
    again = await up.ready()
    assert (await up.node())["linked"], "to the rows of the run that was killed it is linked, too"
    assert not is_alive(job)
    await up.log_in()
    gate.open()
    async with up.api() as client:
        result = (await client.get(f"/v1/tasks/{running}/result?wait=60")).json()
        assert result["status"] == "completed"
        assert (await client.get(f"/v1/tasks/{ended}/logs")).json()["stdout"] == "kept\n"
        assert {(await client.get(f"/v1/tasks/{task}")).json()["status"] for task in waiting} == {"queued"}
    assert await again.stop(signal.SIGINT) == 0
    gate.close()


async def test_ctrl_c_stops_within_five_seconds_also_with_a_job_that_ignores_it(up: Up) -> None:
    process = await up.ready()
    await up.log_in()
    async with up.api() as client:
        stubborn = await submit(client, "trap '' TERM INT; echo $$; while :; do sleep 1; done")
        job = int(await wait_output(client, stubborn))
    pids = up.pids()
    assert await process.stop(signal.SIGINT, seconds=5) == 0
    assert "Stopped." in process.said
    assert not [name for name, pid in {**pids, "job": job}.items() if is_alive(pid)]
    assert "Traceback" not in process.said


async def test_two_on_one_folder_and_a_port_that_is_taken_are_told_by_name(up: Up) -> None:
    first = await up.ready()
    second = up.start()
    assert await second.wait() == 5
    assert str(up.state) in second.said
    assert "Traceback" not in second.said
    other = Up(up.folder / "other", up._processes)
    other.folder.mkdir(mode=0o711)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for setting in ADDRESSES:
            third = other.start(**{setting: address})
            assert await third.wait(30) == 5
            assert address in third.said
            assert "Traceback" not in third.said
    assert is_alive(first.pid)
    closed = up.state.stat().st_mode & 0o077
    assert closed == (0o011 if os.geteuid() == 0 else 0)
    assert (up.state / "admin-password").stat().st_mode & 0o777 == 0o600
    assert await first.stop(signal.SIGINT) == 0
