"""Real sandboxes for tests: podman with an image made of busybox, bubblewrap, and plain processes."""

import ctypes
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import trio

from node_agent.sandbox.bubblewrap import BubblewrapRuntime
from node_agent.sandbox.container import ContainerRuntime
from node_agent.sandbox.engine import Engine
from node_agent.sandbox.limits import NoLimits, find_cgroups
from node_agent.sandbox.plain import PlainRuntime
from node_agent.sandbox.process import Processes, become_subreaper
from node_agent.sandbox.runtime import Runtime
from node_agent.sandbox.spec import Limits
from node_agent.sandbox.sweep import sweep_groups
from node_agent.sandbox.uids import Uids
from sandbox_world import IMAGE, PODMAN_ARGS, PODMAN_RUN_ARGS, SandboxWorld


def missing(what: str) -> None:
    """A test that cannot run: a failure where CI=true, else a skip that says why."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture(scope="session")
def podman_image() -> str:
    """An image of nothing but busybox, imported once; the reason in its place if it cannot be had."""
    podman, busybox = shutil.which("podman"), shutil.which("busybox")
    if podman is None or busybox is None:
        return "podman or busybox (busybox-static) is not installed"
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder, "image.tar")
        _write_busybox(archive, Path(busybox))
        done = subprocess.run([podman, *PODMAN_ARGS, "import", archive, IMAGE], capture_output=True, text=True)
        if done.returncode == 0:
            run = [podman, *PODMAN_ARGS, "run", "--rm", "--network=none", *PODMAN_RUN_ARGS, IMAGE, "true"]
            done = subprocess.run(run, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stderr


def _write_busybox(archive: Path, busybox: Path) -> None:
    names = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    with tarfile.open(archive, "w") as tar:
        for folder, mode in (("bin", 0o755), ("usr", 0o755), ("etc", 0o755), ("tmp", 0o1777)):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        binary = tarfile.TarInfo("bin/busybox")
        binary.mode, binary.size = 0o755, busybox.stat().st_size
        tar.addfile(binary, io.BytesIO(busybox.read_bytes()))
        for name in names:
            if name != "busybox":
                link = tarfile.TarInfo(f"bin/{name}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)


@pytest.fixture
def mounts() -> Iterator[Path]:
    """A folder that the users of jobs can pass through, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="cynode-sandbox-"))
    path.chmod(0o711)
    yield path
    subprocess.run(["chmod", "-R", "u+rwx", path], check=True)
    subprocess.run(["rm", "-rf", path], check=True)


@pytest.fixture
def subreaper() -> Iterator[None]:
    """For one test: whoever stays one collects the zombies of other tests."""
    become_subreaper()
    yield
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@pytest.fixture
def world(mounts: Path, subreaper: None) -> Iterator[SandboxWorld]:  # noqa: ARG001 - it is one meanwhile
    processes, state_id = Processes(), uuid4().hex
    try:
        cgroups = find_cgroups(state_id)
    except NoLimits as error:
        cgroups = None
        if os.environ.get("CI") == "true":
            pytest.fail(f"no cgroups: {error}")
    made = SandboxWorld(mounts, state_id, processes, Uids(state_id, processes.lent_uids), cgroups)
    yield made
    trio.run(sweep_groups, processes, cgroups, ())


@pytest.fixture
def runtime(request: pytest.FixtureRequest) -> Runtime:
    """The runtime that the test's parameter names."""
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


@pytest.fixture
def podman(world: SandboxWorld, podman_image: str) -> Runtime:
    if podman_image:
        missing(f"podman cannot be used: {podman_image}")
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    own = (os.geteuid(), os.getegid())
    program = shutil.which("podman")
    assert program is not None
    engine = Engine("podman", program, env, own, os.geteuid() != 0, PODMAN_ARGS, PODMAN_RUN_ARGS)
    limits = os.geteuid() == 0 or world.cgroups is not None
    return ContainerRuntime(engine, world.processes, world.uids, Limits(pids=1024), IMAGE, limits=limits)


@pytest.fixture
def bubblewrap(world: SandboxWorld) -> Runtime:
    program = shutil.which("bwrap")
    if program is None:
        missing("bubblewrap is not installed")
    assert program is not None
    limits = world.cgroups is not None
    return BubblewrapRuntime(program, world.processes, world.uids, world.cgroups, Limits(pids=1024), limits=limits)


@pytest.fixture
def process(world: SandboxWorld) -> Runtime:
    limits = world.cgroups is not None
    return PlainRuntime(world.processes, world.uids, world.cgroups, Limits(pids=1024), limits=limits)


@pytest.fixture
def limited(runtime: Runtime) -> Runtime:
    if not runtime.limits:
        missing(f"{runtime.name} has no real limits for this user")
    return runtime
