"""kill -9 of the real agent at each named point; what the next run says and what is left of the job."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import node_agent
from node.agent_process import PROCESS, agent, marked, open_home
from node.fake_server import assignment, open_fake_server
from node_agent.crash_points import POINTS

LOST = {
    "node.taken.after_sync",
    "node.accepted.before_send",
    "node.accepted.after_send",
    "node.started.before_sync",
    "node.started.after_sync",
    "node.started.before_send",
    "node.started.after_send",
    "node.output.before_sync",
    "node.output.after_sync",
    "node.output.before_send",
    "node.output.after_send",
}
"""The attempt was taken and its end is not on disk."""
REPORTED = {"node.finished.after_sync", "node.finished.before_send", "node.finished.after_send"}
"""Its end is on disk."""
NOTHING = {"node.taken.before_sync", "node.rejected.before_send", "node.rejected.after_send"}
AT_HELLO = {"node.hello.before_send", "node.hello.after_send"}


@pytest.fixture
def home() -> Iterator[Path]:
    yield from open_home()


def test_every_point_in_the_source_is_documented_and_has_its_test() -> None:
    folder = Path(str(node_agent.__file__)).parent
    source = "\n".join(path.read_text() for path in folder.glob("*.py") if path.name != "crash_points.py")
    assert set(re.findall(r'"(node\.[a-z_.]+)"', source)) == set(POINTS)
    assert LOST | REPORTED | NOTHING | AT_HELLO | {"node.finished.before_sync"} == set(POINTS)


@pytest.mark.parametrize("point", sorted(LOST))
async def test_an_attempt_that_was_taken_is_reported_lost_and_never_run_again(home: Path, point: str) -> None:
    async with open_fake_server() as server:
        server.auto_ack = False
        job = assignment("process", "echo once; echo run >> $HOME/../../../runs; sleep 60")
        async with agent(server.url, home / "state", fault=point, **PROCESS) as process:
            link = await server.linked()
            await link.send("jobs.assign", jobs=[job])
            assert await process.wait() == -signal.SIGKILL
        async with agent(server.url, home / "state", **PROCESS) as process:
            again = await server.linked()
            assert again.hello["spool_id"] == link.hello["spool_id"]
            assert [one["state"] for one in again.hello["held"]] == ["finished"]
            assert marked(job["assignment_id"]) == []
            finished = await again.expect_record("jobs.finished", job["assignment_id"])
            assert finished["outcome"] == "lost"
            records = again.records()
            assert [record["position"] for record in records] == list(range(len(records)))
            await again.ack(finished["position"] + 1)


async def test_an_end_that_was_not_yet_on_disk_is_lost(home: Path) -> None:
    async with open_fake_server() as server:
        server.auto_ack = False
        job = assignment()
        async with agent(server.url, home / "state", fault="node.finished.before_sync") as process:
            await (await server.linked()).send("jobs.assign", jobs=[job])
            assert await process.wait() == -signal.SIGKILL
        async with agent(server.url, home / "state"):
            again = await server.linked()
            finished = await again.expect_record("jobs.finished", job["assignment_id"])
            assert finished["outcome"] == "lost"
            await again.ack(finished["position"] + 1)


@pytest.mark.parametrize("point", sorted(REPORTED))
async def test_an_end_on_disk_is_reported_as_it_was(home: Path, point: str) -> None:
    async with open_fake_server() as server:
        server.auto_ack = False
        job = assignment("process", "echo out; exit 7")
        async with agent(server.url, home / "state", fault=point, **PROCESS) as process:
            link = await server.linked()
            await link.send("jobs.assign", jobs=[job])
            assert await process.wait() == -signal.SIGKILL
        async with agent(server.url, home / "state", **PROCESS):
            again = await server.linked()
            finished = await again.expect_record("jobs.finished", job["assignment_id"])
            assert (finished["outcome"], finished["exit_code"]) == ("failed", 7)
            assert [record["position"] for record in again.records()] == [0, 1, 2]
            await again.ack(3)


@pytest.mark.parametrize("point", sorted(NOTHING))
async def test_what_was_not_taken_is_not_named(home: Path, point: str) -> None:
    async with open_fake_server() as server:
        job = assignment(script="" if "rejected" in point else "true")
        async with agent(server.url, home / "state", fault=point) as process:
            await (await server.linked()).send("jobs.assign", jobs=[job])
            assert await process.wait() == -signal.SIGKILL
        async with agent(server.url, home / "state"):
            assert (await server.linked()).hello["held"] == []


@pytest.mark.parametrize("point", sorted(AT_HELLO))
async def test_killed_at_hello_it_still_has_what_it_has_to_report(home: Path, point: str) -> None:
    async with open_fake_server() as server:
        server.auto_ack = False
        job = assignment()
        async with agent(server.url, home / "state") as process:
            link = await server.linked()
            await link.send("jobs.assign", jobs=[job])
            await link.expect_record("jobs.finished", job["assignment_id"])
            await process.kill()
        async with agent(server.url, home / "state", fault=point) as process:
            assert await process.wait() == -signal.SIGKILL
            if point.endswith("after_send"):
                await server.next_link()
        async with agent(server.url, home / "state"):
            again = await server.linked()
            finished = await again.expect_record("jobs.finished", job["assignment_id"])
            assert (finished["outcome"], finished["position"]) == ("completed", 1)
            await again.ack(2)
