"""Jobs in podman, beside podman alone with the arguments that the node gives it."""

import os
import shutil
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

from bench.effort import Effort
from bench.limits import starts_per_second
from bench.table import Aim, Row
from bench.throughput import jobs_per_second, submit
from bench.world import open_world

IDS = ("podman_throughput",)
IMAGE = "localhost/cynode-bench:1"
AIM = 0.85


def run(effort: Effort) -> list[Row]:
    shell = shutil.which("busybox")
    if shutil.which("podman") is None or shell is None:
        return [Row("podman_throughput", "jobs/s", Aim(least=0), note="podman or a static busybox is not installed")]
    arguments = os.environ.get("NODE_PODMAN_ARGS", "").split()
    more = os.environ.get("NODE_PODMAN_RUN_ARGS", "").split()
    count = effort.count(60, 8)
    podman = ["podman", *arguments]
    make_image(podman, Path(shell))
    bare_run = [*podman, "run", "--rm", "--pull=never", "--network=none", "--read-only", "--cap-drop=all",
                "--security-opt=no-new-privileges", *more, IMAGE, "/bin/sh", "-c", "true"]  # fmt: skip
    with open_world() as world:
        bare = starts_per_second(bare_run, at_once=2, count=count, uid=False)
        world.gateway()
        world.control_plane()
        client = world.admin()
        job: dict[str, object] = {"image": IMAGE, "requires": {"runtime": "podman"}}
        submit(client, world.gateway_url, job, "true", count)
        settings = {
            name: os.environ[name] for name in ("NODE_PODMAN_ARGS", "NODE_PODMAN_RUN_ARGS") if name in os.environ
        }
        world.node(NODE_RUNTIME="podman", NODE_SLOTS="2", NODE_PREFETCH="16", **settings)
        found = jobs_per_second(world, count)
    return [Row("podman_throughput", "jobs/s", Aim(least=AIM * bare), value=found, limit={"bare starts": bare})]


def make_image(podman: list[str], busybox: Path) -> None:
    """An image of one program, made here: nothing is pulled."""
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(busybox, "bin/busybox")
        for name in ("sh", "true", "kill", "sleep"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        for name in ("job", "workspace", "tmp"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
            tar.addfile(folder)
    subprocess.run([*podman, "import", "-", IMAGE], input=packed.getvalue(), check=True, capture_output=True)
