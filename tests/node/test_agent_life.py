"""Start and stop of the real agent: registration, refusals, the state folder, signals, status, a full spool."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from node.agent_process import PROCESS, agent, environment, marked, open_home, runs
from node.fake_server import assignment, open_fake_server, ref


@pytest.fixture
def home() -> Iterator[Path]:
    yield from open_home()


async def test_sigterm_ends_jobs_hands_them_back_and_exits_0(home: Path) -> None:
    async with (
        open_fake_server() as server,
        agent(server.url, home / "state", NODE_SLOTS="1", NODE_PREFETCH="1", **PROCESS) as one,
    ):
        link = await server.linked()
        running = assignment("process", "trap '' TERM; echo ready; while :; do sleep 1; done")
        waiting = assignment("process", "echo never")
        await link.send("jobs.assign", jobs=[running, waiting])
        await link.expect_record("jobs.output", running["assignment_id"])
        one.send(signal.SIGTERM)
        with trio.fail_after(5):
            assert await one.wait() == 0
        ends = {record["assignment_id"]: record for record in link.records("jobs.finished")}
        assert ends[running["assignment_id"]]["outcome"] == "handed_back"
        assert ends[running["assignment_id"]]["started"] is True
        assert ends[waiting["assignment_id"]]["outcome"] == "handed_back"
        assert ends[waiting["assignment_id"]]["started"] is False
        assert marked(running["assignment_id"]) == []


async def test_what_could_not_be_sent_at_the_stop_goes_out_at_the_next_start(home: Path) -> None:
    async with open_fake_server() as server:
        async with agent(server.url, home / "state", **PROCESS) as one:
            link = await server.linked()
            job = assignment("process", "sleep 60")
            await link.send("jobs.assign", jobs=[job])
            await link.expect_record("jobs.started", job["assignment_id"])
            server.answers["link"] = [(503, None)] * 100
            await link.drop()
            assert await one.stop() == 0
        server.answers.clear()
        async with agent(server.url, home / "state", **PROCESS):
            again = await server.linked()
            finished = await again.expect_record("jobs.finished", job["assignment_id"])
            assert finished["outcome"] == "handed_back"


async def test_an_agent_that_starts_before_the_orchestrator_waits_for_it(home: Path) -> None:
    async with open_fake_server() as other:
        port = int(other.url.rpartition(":")[2])
    async with agent(f"http://127.0.0.1:{port}", home / "state") as one:
        await one.wait_said("waiting for the orchestrator")
        async with open_fake_server(port) as server:
            await server.linked()


async def test_a_second_agent_on_the_folder_is_refused_and_named(home: Path) -> None:
    async with open_fake_server() as server, agent(server.url, home / "state"):
        await server.linked()
        async with agent(server.url, home / "state") as second:
            assert await second.wait() == 1
            assert second.said(f"another agent uses the state folder {home / 'state'}")


@pytest.mark.parametrize(
    ("status", "detail", "text"),
    [
        (401, "Invalid registration PSK", "check the secret in NODE_PSK_FILE"),
        (409, "known slug", "choose another NODE_SLUG"),
        (400, "Node slug is required", "Node slug is required"),
    ],
)
async def test_a_refused_registration_says_what_to_do(home: Path, status: int, detail: str, text: str) -> None:
    async with open_fake_server() as server:
        server.answers["/v1/nodes/register"] = [(status, {"detail": detail})]
        async with agent(server.url, home / "state") as one:
            assert await one.wait() == 1
            assert one.said(text)
            assert not one.said("psk-psk")


async def test_trouble_of_the_server_at_registration_is_waited_out(home: Path) -> None:
    async with open_fake_server() as server:
        server.answers["/v1/nodes/register"] = [(503, {"detail": "database away"}), (500, None)]
        async with agent(server.url, home / "state"):
            await server.linked()


async def test_plain_http_to_another_machine_is_refused(home: Path) -> None:
    async with agent("http://192.0.2.1:12082", home / "state") as one:
        assert await one.wait() == 1
        assert one.said("NODE_ALLOW_PLAINTEXT")


async def test_a_join_token_is_used_once_and_the_key_afterwards(home: Path) -> None:
    (home / "token").write_text("join-me\n")
    settings = {"NODE_REGISTRATION_PSK": "", "NODE_JOIN_TOKEN_FILE": str(home / "token")}
    async with open_fake_server() as server:
        async with agent(server.url, home / "state", **settings):
            await server.linked()
        (home / "token").unlink()
        async with agent(server.url, home / "state", NODE_REGISTRATION_PSK=""):
            await server.linked()
        assert [body.get("join_token") for body in server.bodies("/v1/nodes/register")] == ["join-me"]
        assert len(server.bodies("/v1/nodes/token")) == 1
        assert len(server.bodies("/v1/nodes/capability")) == 1
        assert server.bodies("/v1/nodes/token")[0]["node_key"] == server.bodies("/v1/nodes/register")[0]["node_key"]


async def test_without_any_secret_it_says_so(home: Path) -> None:
    async with open_fake_server() as server, agent(server.url, home / "state", NODE_REGISTRATION_PSK="") as one:
        assert await one.wait() == 1
        assert one.said("NODE_JOIN_TOKEN_FILE")


async def test_it_says_which_one_it_is_whatever_its_settings(home: Path) -> None:
    command = [sys.executable, "-m", "node_agent", "--version"]
    said = await trio.run_process(command, env={"NODE_SLOTS": "many", "HOME": str(home)}, capture_stdout=True)
    assert said.stdout.startswith(b"cynode-node 0")


async def test_a_wrong_setting_is_named(home: Path) -> None:
    async with agent("http://localhost", home / "state", NODE_SLOTS="many") as one:
        assert await one.wait() == 2
        assert one.said("NODE_SLOTS: 'many'")


async def test_the_state_folder_is_closed_and_keeps_its_identity(home: Path) -> None:
    async with open_fake_server() as server:
        keys = []
        for _ in range(2):
            async with agent(server.url, home / "state"):
                await server.linked()
            keys.append((home / "state/state_id").read_text() + (home / "state/node_key").read_text())
        assert keys[0] == keys[1]
        assert (home / "state").stat().st_mode & 0o077 in (0o000, 0o011)
        for name in ("state_id", "node_key", "lock"):
            assert (home / "state" / name).stat().st_mode & 0o077 == 0
        assert (home / "state/spool").stat().st_mode & 0o077 == 0


async def test_a_damaged_spool_is_set_aside_and_hello_names_another(home: Path) -> None:
    async with open_fake_server() as server:
        server.auto_ack = False
        async with agent(server.url, home / "state") as one:
            link = await server.linked()
            for _ in range(2):
                job = assignment()
                await link.send("jobs.assign", jobs=[job])
                await link.expect_record("jobs.finished", job["assignment_id"])
            await one.kill()
        segment = min((home / "state/spool").glob("*.seg"))
        data = bytearray(segment.read_bytes())
        data[150] ^= 255
        segment.write_bytes(data)
        async with agent(server.url, home / "state") as one:
            again = await server.linked()
            assert again.hello["spool_id"] != link.hello["spool_id"]
            assert again.hello["held"] == []
            assert one.said("spool.damaged-1")


async def test_status_says_live_ready_and_why_not(home: Path) -> None:
    env = environment("http://127.0.0.1:1", home / "state")

    def ask(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "node_agent", *words, "status"], env=env, capture_output=True, text=True, check=False
        )

    gone = await trio.to_thread.run_sync(ask)
    assert gone.returncode == 1
    assert "no agent runs on" in gone.stdout
    async with open_fake_server() as server, agent(server.url, home / "state", NODE_SLOTS="1", **PROCESS):
        link = await server.next_link()
        waiting = json.loads((await trio.to_thread.run_sync(ask, "--json")).stdout)
        assert (waiting["live"], waiting["ready"]) == (True, False)
        await link.welcome()
        job = assignment("process", "sleep 60")
        await link.send("jobs.assign", jobs=[job])
        await link.expect_record("jobs.started", job["assignment_id"])
        said = await trio.to_thread.run_sync(ask)
        assert said.returncode == 0, said
        assert "0 of 1 free, 1 attempts held" in said.stdout


async def test_it_ends_with_its_parent(home: Path) -> None:
    async with open_fake_server() as server:
        env = environment(server.url, home / "state", **PROCESS)  # its trials run jobs as other users
        code = (
            "import subprocess, sys; p = subprocess.Popen([sys.executable, '-m', 'node_agent', '--die-with-parent']); "
            "print(p.pid, flush=True); sys.stdin.read()"
        )
        quiet = subprocess.DEVNULL
        parent = await trio.lowlevel.open_process(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=quiet, env=env
        )
        assert parent.stdout
        pid = int(await parent.stdout.receive_some())
        link = await server.linked()
        parent.kill()
        assert (await link.wait_closed())[0] in (1000, 1001, 1006)
        await parent.wait()
        async with agent(server.url, home / "state", "--die-with-parent"):
            await server.linked()
        assert not runs(pid, "node_agent")


async def test_a_full_spool_blocks_jobs_refuses_new_ones_and_goes_on_after_an_ack(home: Path) -> None:
    async with (
        open_fake_server() as server,
        agent(server.url, home / "state", NODE_SPOOL_LIMIT_MB="1", **PROCESS) as one,
    ):
        server.auto_ack = False
        link = await server.linked()
        link.auto_ack = False
        job = assignment("process", "head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2")
        await link.send("jobs.assign", jobs=[job])
        sent = 0
        while sent < 800_000:
            record = await link.expect_record("jobs.output", job["assignment_id"])
            sent += len(record["data"]) * 3 // 4
        rejected = False
        while not rejected:
            other = assignment()
            await link.send("jobs.assign", jobs=[other])
            answer = await link.expect("jobs.rejected", "jobs.accepted")
            rejected = answer["type"] == "jobs.rejected"
        assert answer["jobs"] == [{**ref(other), "reason": "busy", "detail": "no room in the node's spool"}]
        link.auto_ack = True
        await link.ack(link.records()[-1]["position"] + 1)
        finished = await link.expect_record("jobs.finished", job["assignment_id"])
        assert finished["total_bytes"] == {"stdout": 1_000_000, "stderr": 1_000_000}
        assert one.peak_kb() < 90_000
