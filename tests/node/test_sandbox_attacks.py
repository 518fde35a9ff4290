"""Jobs that try to break out or to break the machine: each is bounded, and passes where it may."""

import resource
from dataclasses import replace
from uuid import uuid4

import pytest
import trio

from node_agent.sandbox.bubblewrap import BubblewrapRuntime
from node_agent.sandbox.plain import PlainRuntime
from node_agent.sandbox.runtime import Runtime, Stop
from node_agent.sandbox.spec import Limits
from node_link.messages import STREAM_CAP_BYTES
from sandbox_world import SandboxWorld, processes_with, script

EVERYWHERE = ("podman", "bubblewrap", "process")
ISOLATING = ("podman", "bubblewrap")
everywhere = pytest.mark.parametrize("runtime", EVERYWHERE, indirect=True)
isolating = pytest.mark.parametrize("runtime", ISOLATING, indirect=True)

TREE = """
f() { [ "$1" -gt 0 ] || { echo leaf >>leaves; sleep 1; return; }; f $(($1-1)) & f $(($1-1)) & wait; }
f 5 2>/dev/null
grep -c leaf leaves
"""


@everywhere
async def test_fork_bomb_with_an_end_needs_its_pids(limited: Runtime, world: SandboxWorld) -> None:
    _, held = await world.run(limited, script(TREE, limits=Limits(pids=25)))
    _, free = await world.run(limited, script(TREE, limits=Limits(pids=200)))
    assert free.text.strip() == "32"
    assert held.text.strip() != "32"


@pytest.mark.parametrize("starter", ["starter", "no starter"])
@pytest.mark.parametrize("runtime", ["bubblewrap", "process"], indirect=True)
async def test_a_job_that_names_no_limit_has_the_default_one_from_its_first_instruction(
    runtime: PlainRuntime | BubblewrapRuntime, world: SandboxWorld, starter: str
) -> None:
    if starter == "no starter":
        world.processes.starter = None
    if not world.uids.change and world.cgroups is None:
        pytest.skip("neither a user of its own nor a cgroup: the default limit does not hold, as SECURITY.md says")
    _, held = await world.run(replace(runtime, default_limits=Limits(pids=25)), script(TREE))
    _, free = await world.run(replace(runtime, default_limits=Limits(pids=200)), script(TREE))
    assert free.text.strip() == "32"
    assert held.text.strip() != "32"
    if world.uids.change:
        named = script("grep processes /proc/self/limits")
        _, seen = await world.run(replace(runtime, default_limits=Limits(pids=25)), named)
        assert seen.text.split()[2:4] == ["25", "25"]


@everywhere
async def test_fork_bomb_without_end_leaves_nothing(limited: Runtime, world: SandboxWorld) -> None:
    word = uuid4().hex
    bomb = f"b() {{ b | b & }}; echo {word} >/dev/null; b 2>/dev/null; sleep 60"
    ending, _ = await world.run(limited, script(f"sh -c '{bomb}'", timeout_seconds=1.0, limits=Limits(pids=60)))
    assert ending.outcome == "timeout"
    assert processes_with(word) == []


@everywhere
async def test_memory(limited: Runtime, world: SandboxWorld) -> None:
    eat = "head -c 90000000 /dev/zero | tail -c 90000000 | wc -c"
    _, held = await world.run(limited, script(eat, limits=Limits(memory_mb=32)))
    _, free = await world.run(limited, script(eat, limits=Limits(memory_mb=400)))
    assert free.text.strip() == "90000000"
    assert held.text.strip() == "0"


@everywhere
async def test_cpu(limited: Runtime, world: SandboxWorld) -> None:
    burn = "sh -c 'while :; do :; done' & sleep 2; kill $!; wait $!; times"

    async def used(cpus: float) -> float:
        _, seen = await world.run(limited, script(burn, limits=Limits(cpus=cpus)))
        minutes, seconds = seen.text.splitlines()[-1].split()[0].rstrip("s").split("m")
        return int(minutes) * 60 + float(seconds)

    held, free = await used(0.1), await used(2)
    assert held < 0.5
    assert free > held


@everywhere
async def test_one_gibibyte_of_output_costs_no_memory(runtime: Runtime, world: SandboxWorld) -> None:
    await world.run(runtime, script("echo warm"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ending, seen = await world.run(runtime, script("head -c 1073741824 /dev/zero"))
    assert (ending.outcome, ending.truncated["stdout"], len(seen.stdout)) == ("completed", True, STREAM_CAP_BYTES)
    assert seen.largest <= 64 << 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 24 << 10
    ending, seen = await world.run(runtime, script(f"head -c {STREAM_CAP_BYTES} /dev/zero; echo no >&2"))
    assert (ending.truncated["stdout"], len(seen.stdout), seen.stderr) == (False, STREAM_CAP_BYTES, b"no\n")


@everywhere
async def test_network(runtime: Runtime, world: SandboxWorld) -> None:
    """The plain process, which nothing isolates, shows that the way is open but for the sandbox."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        port = listener.socket.getsockname()[1]
        call = f"busybox nc -w 2 127.0.0.1 {port} </dev/null 2>/dev/null; cat /proc/net/dev"
        _, seen = await world.run(runtime, script(call))
        nursery.cancel_scope.cancel()
    assert ("reached" in seen.text) == (runtime.name == "process")
    if runtime.name != "process":
        assert [line.split(":")[0].strip() for line in seen.text.splitlines() if ":" in line] == ["lo"]


async def answer(stream: trio.SocketStream) -> None:
    await stream.send_all(b"reached\n")


@everywhere
async def test_writing_outside_the_workspace(runtime: Runtime, world: SandboxWorld) -> None:
    if runtime.name == "process" and not world.uids.change:
        pytest.skip("a plain process of an ordinary user is that user, and writes where that user may")
    places = [
        "/",
        "/usr",
        "/etc",
        "/bin",
        "/dev",
        "/proc",
        '"$CYNODE_WORKSPACE_DIR/../job"',
        '"$CYNODE_WORKSPACE_DIR.job"',
        '"$CYNODE_WORKSPACE_DIR/.."',
    ]
    if runtime.name == "podman" and not world.uids.change:
        places.remove("/dev")  # root inside a rootless container owns it; it is 64 MiB of memory and nobody else's
    tries = "\n".join(f"( : >{place}/outside ) 2>/dev/null && echo wrote {place}" for place in places)
    allowed = '( : >"$CYNODE_WORKSPACE_DIR/inside" ) && echo workspace\nf=$(mktemp -p /tmp) && echo tmp && rm "$f"'
    job = script(f"{tries}\n{allowed}\n")
    _, seen = await world.run(runtime, job)
    assert seen.text.split("\n") == ["workspace", "tmp", ""], seen
    assert (world.mounts / str(job.assignment_id) / "inside").exists()


@everywhere
async def test_ignoring_sigterm(runtime: Runtime, world: SandboxWorld) -> None:
    deaf, word = "trap '' TERM; echo up; sleep 600; sleep 600", "polite"
    ending, took = await stopped(world, runtime, deaf, grace=0.5)
    assert (ending, took < 8) == (("canceled", 137), True)
    ending, _ = await stopped(world, runtime, f"trap 'echo {word}; exit 9' TERM; echo up; sleep 600 & wait", grace=20)
    assert ending == ("canceled", 9)


async def stopped(
    world: SandboxWorld, runtime: Runtime, text: str, grace: float
) -> tuple[tuple[str, int | None], float]:
    stop, up = Stop(), trio.Event()
    began = 0.0

    async def when_output(_: object) -> None:
        nonlocal began
        if not up.is_set():
            up.set()
            began = trio.current_time()
            stop.request("canceled", grace)

    ending, _ = await world.run(runtime, script(text), stop, when_output=when_output)
    return (ending.outcome, ending.exit_code), trio.current_time() - began


@everywhere
async def test_daemons_are_not_left(runtime: Runtime, world: SandboxWorld) -> None:
    seconds = str(600_000 + uuid4().int % 100_000)
    # Without root, a pid namespace or a cgroup, a daemon that cleaned its environment is not found, as the docs say.
    found = runtime.name != "process" or world.uids.change or world.cgroups is not None
    clean = "env -i PATH=$PATH" if found else ""
    daemon = f"setsid sh -c '{clean} setsid sleep {seconds} & sleep {seconds}' >/dev/null 2>&1 &"
    job = script(
        f"{daemon}\nwhile [ $(ps ax 2>/dev/null | grep -c '[s]leep {seconds}') -lt 2 ]; do :; done; echo both live"
    )
    ending, seen = await world.run(runtime, job)
    assert (ending.outcome, seen.text) == ("completed", "both live\n")
    assert processes_with(seconds) == []


@everywhere
async def test_daemon_that_holds_the_output_does_not_hold_the_job(runtime: Runtime, world: SandboxWorld) -> None:
    began = trio.current_time()
    ending, seen = await world.run(runtime, script("setsid sleep 600 & echo done"))
    assert (ending.outcome, seen.text) == ("completed", "done\n")
    assert trio.current_time() - began < 10


@pytest.mark.parametrize("runtime", ["bubblewrap"], indirect=True)
async def test_system_calls_that_bubblewrap_denies(runtime: Runtime, world: SandboxWorld) -> None:
    text = """#!/usr/bin/python3
import ctypes, errno, platform, socket
libc = ctypes.CDLL(None, use_errno=True)
def name(result):
    return "fine" if result >= 0 else errno.errorcode[ctypes.get_errno()]
print("unshare", name(libc.unshare(0x10000000)))
print("mount", name(libc.mount(b"none", b"/tmp", b"tmpfs", 0, None)))
print("keyctl", name(libc.syscall({"x86_64": 250, "aarch64": 219}[platform.machine()], 0, -3, 0)))
print("ioctl", name(libc.ioctl(0, 0x5412, b"x")))
for family in (socket.AF_INET, socket.AF_UNIX, 40, 38):
    print("socket", int(family), name(libc.socket(family, socket.SOCK_STREAM, 0)))
"""
    _, seen = await world.run(runtime, script(text))
    assert seen.text.splitlines() == [
        "unshare EPERM",
        "mount EPERM",
        "keyctl EPERM",
        "ioctl EPERM",
        "socket 2 fine",
        "socket 1 fine",
        "socket 40 EAFNOSUPPORT",
        "socket 38 EAFNOSUPPORT",
    ], seen
