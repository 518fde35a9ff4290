"""A node with more than it can hold: output without end, bytes that are no text, a spool or a disk that is full."""

import trio

from real_process import Process
from world import LONG_LEASE, World, until

GROWTH_KB = 64 << 10


async def peak(processes: dict[str, Process], peaks: dict[str, int]) -> None:
    while True:
        for name, process in processes.items():
            peaks[name] = max(peaks.get(name, 0), process.memory_kb())
        await trio.sleep(0.05)


async def test_a_job_that_floods_leaves_memory_flat_at_both_ends(world: World) -> None:
    gateway, control, node = await world.start("n1", control=LONG_LEASE)
    processes, peaks = {"gateway": gateway, "control": control, "node": node}, dict[str, int]()
    assert (await world.result(await world.submit("echo warm")))["stdout"] == "warm\n"
    before = {name: process.memory_kb() for name, process in processes.items()}
    async with trio.open_nursery() as sampling:
        sampling.start_soon(peak, processes, peaks)
        result = await world.result(await world.submit("head -c 1G /dev/zero; echo end >&2"), 60)
        sampling.cancel_scope.cancel()
    assert (result["status"], result["exit_code"], result["stderr"]) == ("completed", 0, "end\n")
    assert result["truncated"] == {"stdout": True, "stderr": False}
    assert result["stdout"] == "\0" * (1 << 20)
    assert {name: peaks[name] - before[name] for name in peaks if peaks[name] - before[name] > GROWTH_KB} == {}


async def test_bytes_that_are_no_text_arrive_as_replacements(world: World) -> None:
    await world.start("n1")
    script = (
        r"printf 'a\000b\377\303'; sleep 0.1; printf '\251 \355\240\200 \360\237\230\200\033[31m'; printf '\377' >&2"
    )
    task = await world.submit(script, env={"LC_ALL": "C"})
    result = await world.result(task)
    assert result["status"] == "completed"
    raw = b"a\0b\xff\xc3\xa9 \xed\xa0\x80 \xf0\x9f\x98\x80\x1b[31m"
    assert (result["stdout"], result["stderr"]) == (raw.decode(errors="replace"), "\ufffd")
    rows = await world.sql("SELECT data FROM job_output WHERE stream = 'stdout' ORDER BY seq")
    assert b"".join(bytes(row["data"]) for row in rows) == raw
    assert (await world.result(await world.submit("echo next")))["stdout"] == "next\n"


async def test_a_full_spool_blocks_the_job_and_loses_nothing(world: World) -> None:
    gate = world.gate()
    await world.start("n1", control=LONG_LEASE, NODE_SPOOL_LIMIT_MB="1")
    line = "0123456789abcde"
    script = f"echo begun; {gate.wait}; yes {line} | head -c 900000; yes {line} | head -c 900000 >&2; echo done"
    task = await world.submit(script)
    await world.wait_output(task, "begun")
    upstream, world.wire.upstream = world.wire.upstream, None
    world.wire.cut()
    gate.open()

    async def full() -> bool:
        return bool((await world.agent_status("n1"))["spool"]["bytes"] > 900_000)

    await until(full, what="a full spool")
    assert [held["state"] for held in (await world.agent_status("n1"))["held"]] == ["running"]
    world.wire.upstream = upstream
    result = await world.result(task)
    assert result["status"] == "completed"
    assert result["stdout"] == "begun\n" + (f"{line}\n" * 60_000)[:900_000] + "done\n"
    assert len(result["stderr"]) == 900_000
    assert await world.attempts(task) == [("completed", "n1")]
