"""The link from the node's side, against a fake control-plane over real sockets, with the real agent process."""

import os
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import trio

from node.agent_process import PROCESS, agent, marked, open_home
from node.fake_server import FakeLink, assignment, open_fake_server, ref
from node_link.messages import MAX_FRAME_BYTES


@pytest.fixture
def home() -> Iterator[Path]:
    yield from open_home()


async def run_one(link: FakeLink, **fields: Any) -> dict[str, Any]:
    job = assignment(**fields)
    await link.send("jobs.assign", jobs=[job])
    return await link.expect_record("jobs.finished", job["assignment_id"])


async def test_it_registers_reports_fetches_acknowledges_and_links(home: Path) -> None:
    async with open_fake_server() as server, agent(server.url, home / "state", NODE_LABELS="zone=a", **PROCESS):
        link = await server.linked()
        registration = server.bodies("/v1/nodes/register")[0]
        assert registration["capability"]["node"] == {
            "node_slug": "n1",
            "name": registration["capability"]["node"]["name"],
            "labels": {"zone": "a"},
        }
        assert {one["name"] for one in registration["capability"]["runtimes"]} == {"noop", "process"}
        assert len(registration["node_key"]) == 43
        paths = [path for path, _ in server.requests]
        assert paths == ["/v1/nodes/register", "/v1/nodes/config", "/v1/nodes/config"]
        acknowledged = server.requests[2][1]
        assert (acknowledged["status"], acknowledged["node_slug"]) == ("applied", "n1")
        assert link.hello["slots"] == 2
        assert link.hello["held"] == []
        assert server.tokens_seen == ["Bearer jwt-1"]


async def test_a_job_is_accepted_started_streamed_and_finished(home: Path) -> None:
    async with open_fake_server() as server, agent(server.url, home / "state", **PROCESS):
        link = await server.linked()
        job = assignment("process", "echo out; echo err >&2; exit 3")
        await link.send("jobs.assign", jobs=[job])
        assert (await link.expect("jobs.accepted"))["jobs"] == [ref(job)]
        finished = await link.expect_record("jobs.finished", job["assignment_id"])
        assert (finished["outcome"], finished["exit_code"], finished["started"]) == ("failed", 3, True)
        assert finished["total_bytes"] == {"stdout": 4, "stderr": 4}
        records = link.records()
        assert [record["position"] for record in records] == list(range(len(records)))
        assert records[0]["runtime"] == "process"
        assert {record["stream"] for record in records if record["type"] == "jobs.output"} == {"stdout", "stderr"}
        assert all(record["age"] >= 0 for record in records)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives jobs users of their own")
async def test_a_job_that_names_no_limit_may_have_1024_processes(home: Path) -> None:
    async with open_fake_server() as server, agent(server.url, home / "state", **PROCESS):
        link = await server.linked()
        job = assignment("process", "#!/bin/sh\ngrep processes /proc/self/limits")
        await link.send("jobs.assign", jobs=[job])
        said = b64decode((await link.expect_record("jobs.output", job["assignment_id"]))["data"])
        assert said.split()[2:4] == [b"1024", b"1024"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives jobs users of their own; others could kill their agent")
async def test_a_job_that_kills_all_it_may_does_not_reach_its_agent(home: Path) -> None:
    async with open_fake_server() as server, agent(server.url, home / "state", NODE_PREFETCH="30", **PROCESS):
        link = await server.linked()
        killers = [assignment("process", "#!/bin/sh\nkill -9 -1") for _ in range(30)]
        await link.send("jobs.assign", jobs=killers)
        for job in killers:
            if not any(record["assignment_id"] == job["assignment_id"] for record in link.records("jobs.finished")):
                await link.expect_record("jobs.finished", job["assignment_id"])
        assert (await run_one(link))["outcome"] == "completed"


async def test_many_jobs_are_accepted_in_one_frame_and_positions_never_skip(home: Path) -> None:
    async with open_fake_server() as server, agent(server.url, home / "state", NODE_PREFETCH="200"):
        link = await server.linked()
        jobs = [assignment() for _ in range(200)]
        await link.send("jobs.assign", jobs=jobs)
        assert len((await link.expect("jobs.accepted"))["jobs"]) == 200
        for job in jobs:
            if not any(record["assignment_id"] == job["assignment_id"] for record in link.records("jobs.finished")):
                await link.expect_record("jobs.finished", job["assignment_id"])
        assert [record["position"] for record in link.records()] == list(range(400))


async def test_a_dropped_link_leaves_jobs_running_and_resends_what_was_not_acknowledged(home: Path) -> None:
    async with open_fake_server() as server, agent(server.url, home / "state", **PROCESS):
        server.auto_ack = False
        link = await server.linked()
        done, running = assignment(), assignment("process", "mkfifo pipe; echo ready; cat pipe")
        await link.send("jobs.assign", jobs=[done, running])
        await link.expect_record("jobs.finished", done["assignment_id"])
        await link.expect_record("jobs.output", running["assignment_id"])
        await link.ack(1)
        sent = link.records()
        await link.drop()
        again = await server.linked()
        held = {one["assignment_id"]: one["state"] for one in again.hello["held"]}
        assert held == {done["assignment_id"]: "finished", running["assignment_id"]: "running"}
        assert again.hello["spool_id"] == link.hello["spool_id"]
        await again.expect_record("jobs.output", running["assignment_id"])
        assert [record["position"] for record in again.records()] == [record["position"] for record in sent][1:]
        pipe = home / "state/sandbox_mounts" / running["assignment_id"] / "pipe"
        await trio.to_thread.run_sync(pipe.write_text, "more\n")
        finished = await again.expect_record("jobs.finished", running["assignment_id"])
        assert finished["total_bytes"]["stdout"] == len("ready\nmore\n")
        await again.ack(finished["position"] + 1)


async def test_an_ack_for_another_spool_is_ignored(home: Path) -> None:
    async with open_fake_server() as server, agent(server.url, home / "state"):
        server.auto_ack = False
        link = await server.linked()
        await run_one(link)
        await link.ack(99, spool_id=str(uuid4()))
        await link.drop()
        again = await server.linked()
        assert [one["state"] for one in again.hello["held"]] == ["finished"]
        await again.expect("jobs.finished")
        assert [record["position"] for record in again.records()] == [0, 1]
        await again.ack(2)
        await again.drop()
        assert (await server.linked()).hello["held"] == []


async def test_a_duplicate_assignment_is_answered_with_its_present_state(home: Path) -> None:
    async with open_fake_server() as server, agent(server.url, home / "state", **PROCESS):
        link = await server.linked()
        job = assignment("process", "sleep 60")
        await link.send("jobs.assign", jobs=[job])
        await link.expect_record("jobs.started", job["assignment_id"])
        await link.send("jobs.assign", jobs=[job])
        assert (await link.expect("jobs.accepted"))["jobs"] == [ref(job)]
        await link.send("jobs.cancel", jobs=[{**ref(job), "reason": "canceled", "grace_seconds": 0}])
        finished = await link.expect_record("jobs.finished", job["assignment_id"])
        assert finished["outcome"] == "canceled"
        assert len(link.records("jobs.started")) == 1


async def test_cancel_of_what_is_not_held_is_rejected_and_never_started_on_that_link(home: Path) -> None:
    async with open_fake_server() as server, agent(server.url, home / "state"):
        link = await server.linked()
        job = assignment()
        await link.send("jobs.cancel", jobs=[{**ref(job), "reason": "fenced"}])
        assert (await link.expect("jobs.rejected"))["jobs"][0]["reason"] == "canceled"
        await link.send("jobs.assign", jobs=[job])
        assert (await link.expect("jobs.rejected"))["jobs"][0]["reason"] == "canceled"
        await link.drop()
        again = await server.linked()
        assert (await run_one(again))["outcome"] == "completed"
        await again.send("jobs.assign", jobs=[job])
        assert (await again.expect("jobs.accepted"))["jobs"] == [ref(job)]


async def test_a_recall_hands_back_what_waits_and_leaves_what_runs(home: Path) -> None:
    async with (
        open_fake_server() as server,
        agent(server.url, home / "state", NODE_SLOTS="1", NODE_PREFETCH="1", **PROCESS),
    ):
        link = await server.linked()
        running, waiting = assignment("process", "sleep 60"), assignment("process", "echo never")
        await link.send("jobs.assign", jobs=[running, waiting])
        await link.expect_record("jobs.started", running["assignment_id"])
        await link.send("jobs.cancel", jobs=[{**ref(job), "reason": "recall"} for job in (running, waiting)])
        finished = await link.expect_record("jobs.finished", waiting["assignment_id"])
        assert (finished["outcome"], finished["started"]) == ("handed_back", False)
        await link.send("jobs.cancel", jobs=[{**ref(running), "reason": "timeout", "grace_seconds": 0}])
        finished = await link.expect_record("jobs.finished", running["assignment_id"])
        assert (finished["outcome"], finished["started"]) == ("timeout", True)


@pytest.mark.parametrize(
    ("job", "reason", "text"),
    [
        (assignment(script=""), "invalid", "script"),
        (assignment(spec={"input_mode": "prompt"}), "invalid", "prompt"),
        (assignment("podman"), "forbidden_here", "podman"),
        (assignment("noop", spec={"image": "alpine"}), "unsupported", "image"),
        (assignment(spec={"resources": {"memory_mb": 64}}), "unsupported", "resources"),
        (assignment(spec={"requires": {"gpu": True}}), "unsupported", "GPU"),
    ],
    ids=["no script", "prompt", "narrowed", "image", "limits", "gpu"],
)
async def test_what_it_cannot_run_is_rejected_with_the_reason(
    home: Path, job: dict[str, Any], reason: str, text: str
) -> None:
    async with open_fake_server() as server, agent(server.url, home / "state"):
        link = await server.linked()
        await link.send("jobs.assign", jobs=[job])
        rejected = (await link.expect("jobs.rejected"))["jobs"][0]
        assert rejected["reason"] == reason
        assert text in rejected["detail"]


async def test_more_than_it_has_room_for_is_rejected_as_busy(home: Path) -> None:
    async with open_fake_server() as server, agent(server.url, home / "state", NODE_SLOTS="1", **PROCESS):
        link = await server.linked()
        await link.send("jobs.assign", jobs=[assignment("process", "sleep 60") for _ in range(2)])
        assert (await link.expect("jobs.rejected"))["jobs"][0]["reason"] == "busy"


async def test_drain_and_stop_all_reject_until_they_end(home: Path) -> None:
    async with open_fake_server() as server, agent(server.url, home / "state", **PROCESS):
        link = await server.linked(drain_state="draining")
        await link.send("jobs.assign", jobs=[assignment()])
        assert (await link.expect("jobs.rejected"))["jobs"][0]["reason"] == "draining"
        await link.send("drain", drain_state="none")
        job = assignment("process", "sleep 60")
        await link.send("jobs.assign", jobs=[job])
        await link.expect_record("jobs.started", job["assignment_id"])
        await link.send("stop_all", reason="stopping")
        finished = await link.expect_record("jobs.finished", job["assignment_id"])
        assert (finished["outcome"], finished["started"]) == ("handed_back", True)
        await link.send("jobs.assign", jobs=[assignment()])
        assert (await link.expect("jobs.rejected"))["jobs"][0]["reason"] == "draining"
        await link.drop()
        assert (await run_one(await server.linked()))["outcome"] == "completed"


async def test_what_welcome_kills_is_ended(home: Path) -> None:
    async with open_fake_server() as server, agent(server.url, home / "state", **PROCESS):
        link = await server.linked()
        job = assignment("process", "sleep 60")
        await link.send("jobs.assign", jobs=[job])
        await link.expect_record("jobs.started", job["assignment_id"])
        await link.drop()
        again = await server.linked(kill=[ref(job)])
        assert (await again.expect_record("jobs.finished", job["assignment_id"]))["outcome"] == "canceled"


async def test_taken_over_before_welcome_dials_again_and_after_it_ends_naming_the_folder(home: Path) -> None:
    async with open_fake_server() as server, agent(server.url, home / "state", **PROCESS) as process:
        link = await server.linked()
        await link.drop()
        refused = await server.next_link()
        await refused.close(4409, "another agent is linked as n1")
        link = await server.linked()
        job = assignment("process", "sleep 60")
        await link.send("jobs.assign", jobs=[job])
        await link.expect_record("jobs.started", job["assignment_id"])
        await link.close(4409, "taken over")
        assert await process.wait() == 1
        assert process.said(str(home / "state"))
        assert marked(job["assignment_id"]) == []


async def test_taken_over_by_a_hello_of_its_own_that_nobody_answered_it_dials_again(home: Path) -> None:
    """A control-plane may commit it after the next link was made."""
    async with open_fake_server() as server, agent(server.url, home / "state"):
        unanswered = await server.next_link()
        await unanswered.drop()
        link = await server.linked()
        await link.close(4409, "taken over")
        await server.linked()


async def test_an_expired_token_is_renewed(home: Path) -> None:
    async with open_fake_server() as server, agent(server.url, home / "state"):
        link = await server.linked()
        await link.close(4401, "expired")
        await server.linked()
        assert server.tokens_seen == ["Bearer jwt-1", "Bearer jwt-2"]
        body = server.bodies("/v1/nodes/token")[0]
        assert body == {"node_slug": "n1", "node_key": server.bodies("/v1/nodes/register")[0]["node_key"]}


async def test_a_silent_server_is_left(home: Path) -> None:
    async with open_fake_server() as server, agent(server.url, home / "state"):
        link = await server.next_link()
        link.answer_heartbeats = False
        await link.welcome(heartbeat_interval=0.3)
        assert (await link.wait_closed())[0] == 4408
        await server.linked()


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("{", 4400),
        ("[]", 4400),
        ('{"type": "ack"}', 4400),
        ('{"type": "jobs.accepted", "jobs": []}', 4400),
        ('{"type": "welcome", "link_id": "3b241101-e2bb-4255-8caf-4136c566a962", "heartbeat_interval": 1}', 4400),
        ("x" * (MAX_FRAME_BYTES + 1), 1009),
    ],
    ids=["garbage", "list", "no fields", "wrong sender", "second welcome", "too large"],
)
async def test_bad_frames_close_the_link_and_it_dials_again(home: Path, frame: str, code: int) -> None:
    async with open_fake_server() as server, agent(server.url, home / "state"):
        link = await server.linked()
        await link.send_text(frame)
        assert (await link.wait_closed())[0] == code
        assert (await run_one(await server.linked()))["outcome"] == "completed"


async def test_an_unknown_type_is_answered_and_the_link_goes_on(home: Path) -> None:
    async with open_fake_server() as server, agent(server.url, home / "state"):
        link = await server.linked()
        await link.send("weather", wind=3)
        error = await link.expect("error")
        assert (error["code"], error["message_type"]) == ("unknown_type", "weather")
        assert (await run_one(link))["outcome"] == "completed"


async def test_a_new_configuration_is_applied_or_refused_whole(home: Path) -> None:
    async with open_fake_server() as server, agent(server.url, home / "state", **PROCESS):
        link = await server.linked()
        config = {"version": 1, "config_version": "02", "constraints": {"max_job_timeout_seconds": 1}}
        await link.send("config", config_version="02", config=config)
        assert (await link.expect("config.ack"))["status"] == "applied"
        bad = {"version": 1, "config_version": "03", "constraints": {"max_job_timeout_seconds": "soon"}}
        await link.send("config", config_version="03", config=bad)
        ack = await link.expect("config.ack")
        assert ack["status"] == "rolled_back"
        assert "max_job_timeout_seconds" in ack["error"]
        assert (await run_one(link, runtime="process", script="sleep 60"))["outcome"] == "timeout"


async def test_heartbeats_name_what_is_held_and_what_is_free(home: Path) -> None:
    async with open_fake_server() as server, agent(server.url, home / "state", **PROCESS):
        link = await server.next_link()
        await link.welcome(heartbeat_interval=0.2)
        assert (await link.expect("heartbeat"))["free_slots"] == 2
        job = assignment("process", "sleep 60")
        await link.send("jobs.assign", jobs=[job])
        await link.expect_record("jobs.started", job["assignment_id"])
        while (beat := await link.expect("heartbeat"))["free_slots"] != 1:
            pass
        assert beat["held"] == [{**ref(job), "state": "running"}]
        assert beat["load"] >= 0


async def test_a_flood_of_output_is_capped_and_memory_stays_flat(home: Path) -> None:
    async with open_fake_server() as server, agent(server.url, home / "state", **PROCESS) as process:
        link = await server.linked()
        job = assignment("process", "head -c 300000000 /dev/zero; echo end >&2")
        await link.send("jobs.assign", jobs=[job])
        finished = await link.expect_record("jobs.finished", job["assignment_id"])
        assert finished["truncated"] == {"stdout": True, "stderr": False}
        assert finished["total_bytes"] == {"stdout": 1 << 20, "stderr": 4}
        assert process.peak_kb() < 90_000


async def test_addresses_are_tried_in_turn_until_one_answers(home: Path) -> None:
    async with open_fake_server() as server, agent(f"http://127.0.0.1:1,{server.url}", home / "state"):
        link = await server.linked()
        await link.close(1001, "stopping")
        assert (await run_one(await server.linked()))["outcome"] == "completed"
