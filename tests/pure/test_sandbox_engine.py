"""The arguments that podman and docker are given. No docker ever ran in these tests: its lists are all there is."""

from dataclasses import replace
from pathlib import Path
from uuid import UUID

from node_agent.sandbox.engine import Engine
from node_agent.sandbox.folder import Folder
from node_agent.sandbox.spec import JobToRun, Limits, Program

ID = UUID("01890000-0000-7000-8000-000000000001")
JOB = JobToRun(ID, ID, 3, ID, "script", 9, "x", env={"A": "b c"})
PODMAN = Engine("podman", "/usr/bin/podman", {}, (1000, 1001), args=("--storage-driver", "vfs"), run_args=("--init",))
DOCKER = Engine("docker", "/usr/bin/docker", {}, (0, 0))
FOLDER = Folder(Path("/mounts/a b"), Program("script", b"x", by_itself=False))
LIMITS = Limits(64, 0.5, 20)


def run(engine: Engine, uid: int | None = 2_000_000_000, limits: Limits = LIMITS) -> list[str]:
    return engine.run(JOB, "busybox:1", limits, FOLDER, "state", uid)


EXPECTED_DOCKER = [
    "/usr/bin/docker",
    "run",
    "--rm",
    "--pull=never",
    "--network=none",
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--log-driver=none",
    "--hostname=cynode",
    f"--name=cynode-{ID}",
    "--cidfile=/mounts/a b.job/cid",
    "--user=2000000000:2000000000",
    "--label=io.cynode.state=state",
    f"--label=io.cynode.task={ID}",
    f"--label=io.cynode.job={ID}",
    f"--label=io.cynode.assignment={ID}",
    "--memory=64m",
    "--memory-swap=64m",
    "--pids-limit=20",
    "--cpus=0.5",
    "--mount=type=tmpfs,destination=/tmp,tmpfs-size=268435456,tmpfs-mode=1777",
    "--volume=/mounts/a b:/workspace:rw,Z",
    "--volume=/mounts/a b.job:/job:ro,Z",
    "--workdir=/workspace",
    "--entrypoint=/bin/sh",
    "--env",
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "--env",
    "HOME=/workspace",
    "--env",
    "TMPDIR=/tmp",
    "--env",
    "LANG=C.UTF-8",
    "--env",
    "A=b c",
    "--env",
    f"CYNODE_TASK_ID={ID}",
    "--env",
    f"CYNODE_JOB_ID={ID}",
    "--env",
    "CYNODE_ATTEMPT=3",
    "--env",
    f"CYNODE_ASSIGNMENT_ID={ID}",
    "--env",
    "CYNODE_WORKSPACE_DIR=/workspace",
    "busybox:1",
    "/job/init",
    "/bin/sh",
    "/job/script",
]


def test_docker_run() -> None:
    assert run(DOCKER) == EXPECTED_DOCKER


def test_podman_run_adds_its_own() -> None:
    expected = list(EXPECTED_DOCKER)
    expected[:1] = ["/usr/bin/podman", "--storage-driver", "vfs"]
    expected.insert(expected.index("--label=io.cynode.state=state"), "--http-proxy=false")
    expected.insert(expected.index("busybox:1"), "--init")
    assert run(PODMAN) == expected


def test_who_the_job_is() -> None:
    rootless = replace(PODMAN, rootless=True)
    assert "--user=1000:1001" in run(PODMAN, None)
    assert "--user=0:0" in run(rootless, None)


def test_no_limits_no_flags() -> None:
    said = " ".join(run(DOCKER, limits=Limits()))
    assert not any(flag in said for flag in ("--memory", "--pids", "--cpus"))


def test_the_other_commands() -> None:
    podman, docker = ["/usr/bin/podman", "--storage-driver", "vfs"], ["/usr/bin/docker"]
    assert PODMAN.image_exists("i") == [*podman, "image", "exists", "i"]
    assert DOCKER.image_exists("i") == [*docker, "image", "inspect", "i"]
    assert DOCKER.pull("i") == [*docker, "pull", "--quiet", "i"]
    assert DOCKER.kill("c", "TERM") == [*docker, "kill", "--signal=TERM", "c"]
    assert PODMAN.remove("c") == [*podman, "rm", "--force", "--time=0", "--ignore", "--volumes", "c"]
    assert DOCKER.remove("c") == [*docker, "rm", "--force", "--volumes", "c"]
    listing = ["ps", "--all", "--filter=label=io.cynode.state=s", "--format={{.Names}}"]
    assert DOCKER.list_marked("s") == [*docker, *listing]
