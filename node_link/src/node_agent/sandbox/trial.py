"""Finds out which runtimes really work here, by running a small job in each, and whether their limits are real."""

import os
import pwd
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from uuid import uuid4

import trio

from node_agent.sandbox.bubblewrap import BubblewrapRuntime
from node_agent.sandbox.container import ContainerRuntime
from node_agent.sandbox.engine import Engine
from node_agent.sandbox.folder import folder_of, remove_folder
from node_agent.sandbox.host import host_tree
from node_agent.sandbox.limits import Cgroups, NoLimits, find_cgroups
from node_agent.sandbox.noop import NoopRuntime
from node_agent.sandbox.plain import PlainRuntime
from node_agent.sandbox.process import Command, Processes
from node_agent.sandbox.runtime import Found, Runtime, SandboxSettings, Stop
from node_agent.sandbox.spec import DEFAULT_PATH, Ending, JobToRun, Limits, RuntimeName
from node_agent.sandbox.sweep import sweep_groups
from node_agent.sandbox.trial_image import TRIAL_IMAGE, write_archive
from node_agent.sandbox.uids import Uids
from node_link.messages import Stream

ALL: tuple[RuntimeName, ...] = ("podman", "docker", "bubblewrap", "process", "noop")
_TRIAL_SECONDS = 60.0
_CODE = 7
_SAID = "cynode-trial"
_LIMITS = Limits(memory_mb=32, cpus=0.5, pids=24)
_TRY_LIMITS = f"""\
cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/cpu*/cpu.cfs_quota_us 2>/dev/null | sed 's/^/cpu /'
echo "memory $(head -c 60000000 /dev/zero | tail -c 60000000 | wc -c)"
echo pids
( i=0; while [ $i -lt 60 ]; do sleep 60 & i=$((i+1)); done; echo unbounded ) 2>/dev/null
exit {_CODE}
"""
_INSTALL: dict[RuntimeName, str] = {
    "podman": "install the package podman (apt-get install podman, dnf install podman)",
    "docker": "install and start docker (https://docs.docker.com/engine/install), and let this user use its socket",
    "bubblewrap": "install the package bubblewrap, 0.8 or later (apt-get install bubblewrap, dnf install bubblewrap)",
    "process": "set NODE_ALLOW_PROCESS=1 if jobs may run here without any isolation",
    "noop": "set NODE_ALLOW_NOOP=1 to measure everything but sandboxes",
}


class Unusable(Exception):
    """Why a runtime cannot be used here, and what mends it if that is not its package."""

    def __init__(self, why: str, install: str | None = None) -> None:
        super().__init__(why)
        self.install = install


@dataclass(frozen=True)
class _Trial:
    """What all trials share."""

    settings: SandboxSettings
    processes: Processes
    uids: Uids
    cgroups: Cgroups | None
    """For real jobs."""
    trial_cgroups: Cgroups | None
    """Under another name, so that no sweep of real jobs ends a trial."""
    no_limits: str

    def mark(self, name: RuntimeName) -> str:
        """Not that of real jobs, whose sweep must not end a trial; nor one for all, for the same reason."""
        return f"{self.settings.state_id}-trial-{name}"


async def find_runtimes(settings: SandboxSettings, processes: Processes) -> list[Found]:
    """Every runtime, whether it was found or not, the preferred first."""
    _open_mounts(settings.mounts)
    trial = _trial(settings, processes)
    found: dict[RuntimeName, Found] = {}

    async def look(name: RuntimeName) -> None:
        found[name] = await _look(trial, name)

    async with trio.open_nursery() as nursery:
        for name in ALL:
            nursery.start_soon(look, name)
    if trial.trial_cgroups is not None:
        await sweep_groups(processes, trial.trial_cgroups, ())
    return [found[name] for name in ALL]


def _open_mounts(mounts: Path) -> None:
    mounts.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.geteuid() == 0:
        mounts.chmod(0o711)  # jobs run as other users: they come through, and see nothing


def _trial(settings: SandboxSettings, processes: Processes) -> _Trial:
    cgroups = trial_cgroups = None
    no_limits = ""
    try:
        cgroups = find_cgroups(settings.state_id)
        trial_cgroups = find_cgroups(f"{settings.state_id}-trial")
    except NoLimits as error:
        no_limits = str(error)
    uids = Uids(settings.state_id, processes.lent_uids)
    return _Trial(settings, processes, uids, cgroups, trial_cgroups, no_limits)


async def _look(trial: _Trial, name: RuntimeName) -> Found:
    if trial.settings.offered is not None and name not in trial.settings.offered:
        return Found(name, None, "not tried: NODE_RUNTIME names others", f"add {name} to NODE_RUNTIME")
    try:
        with trio.fail_after(_TRIAL_SECONDS):
            if name in ("podman", "docker"):
                return await _look_for_engine(trial, name)
            if name == "bubblewrap":
                return await _look_for_bubblewrap(trial)
            if name == "process":
                return await _look_for_process(trial)
            return _look_for_noop(trial)
    except Unusable as error:
        return Found(name, None, str(error), error.install or _INSTALL[name])
    except trio.TooSlowError:
        return Found(name, None, f"its trial did not end within {_TRIAL_SECONDS:.0f} s", _INSTALL[name])
    except OSError as error:
        return Found(name, None, f"its trial failed: {error}", _INSTALL[name])


def _look_for_noop(trial: _Trial) -> Found:
    if not trial.settings.allow_noop:
        raise Unusable("not allowed: it runs nothing and only serves for measuring")
    return Found("noop", NoopRuntime(), "runs nothing")


async def _look_for_process(trial: _Trial) -> Found:
    if not trial.settings.allow_process:
        raise Unusable("not allowed: it does not isolate jobs")
    _check_way_in(trial)
    runtime = PlainRuntime(trial.processes, trial.uids, trial.cgroups, trial.settings.default_limits)
    tried = replace(runtime, cgroups=trial.trial_cgroups)
    await _try(trial, tried, None)
    limits, said = await _try_own_limits(trial, tried)
    return Found("process", replace(runtime, limits=limits), f"no isolation; {said}")


async def _look_for_bubblewrap(trial: _Trial) -> Found:
    program = _program(trial, "bwrap")
    _check_way_in(trial)
    version = await _version(trial, (program, "--version"), {"PATH": DEFAULT_PATH})
    runtime = BubblewrapRuntime(program, trial.processes, trial.uids, trial.cgroups, trial.settings.default_limits)
    tried = replace(runtime, cgroups=trial.trial_cgroups)
    await _try(trial, tried, None)
    limits, said = await _try_own_limits(trial, tried)
    return Found("bubblewrap", replace(runtime, limits=limits), f"{version}; {said}")


async def _try_own_limits(trial: _Trial, runtime: Runtime) -> tuple[bool, str]:
    if trial.cgroups is None:
        return False, f"limits are not real: {trial.no_limits}"
    return await _try_limits(trial, runtime, None)


async def _look_for_engine(trial: _Trial, name: Literal["podman", "docker"]) -> Found:
    settings = trial.settings
    program = _program(trial, name)
    if ":" in str(settings.mounts):
        raise Unusable(f"the state folder {settings.mounts} has a ':' in its path", "choose another state folder")
    env = _engine_env(settings.tool_env)
    args, run_args = (settings.podman_args, settings.podman_run_args) if name == "podman" else ((), ())
    rootless = name == "podman" and os.geteuid() != 0
    engine = Engine(name, program, env, (os.geteuid(), os.getegid()), rootless, args, run_args)
    version = await _version(trial, engine.version(), env)
    runtime = ContainerRuntime(
        engine, trial.processes, trial.uids, settings.default_limits, settings.default_image, settings.pull_seconds
    )
    await _import_trial_image(trial, engine)
    shown = [f"--volume={path}:{path}:ro" for path in host_tree().binds]
    trial_engine = replace(engine, run_args=(*run_args, *shown, "--security-opt=label=disable"))
    tried = replace(runtime, engine=trial_engine, limits=True)
    await tried.sweep(trial.mark(name), ())
    unlimited = replace(tried, limits=False)
    await _try(trial, unlimited, TRIAL_IMAGE)
    limits, said = await _try_limits(trial, tried, TRIAL_IMAGE)
    return Found(name, replace(runtime, limits=limits), f"{name} {version}; {said}")


async def _import_trial_image(trial: _Trial, engine: Engine) -> None:
    if (await trial.processes.run_tool(Command(engine.image_exists(TRIAL_IMAGE), engine.env))).code == 0:
        return
    archive = trial.settings.mounts / f"{uuid4()}.tar"
    try:
        write_archive(archive, host_tree())
        imported = await trial.processes.run_tool(Command(engine.import_image(archive, TRIAL_IMAGE), engine.env))
    finally:
        archive.unlink(missing_ok=True)
    if imported.code != 0:
        raise Unusable(f"it cannot make an image: {imported.stderr.strip()[-500:]}", "see what it says")


async def _try(trial: _Trial, runtime: Runtime, image: str | None) -> None:
    ending, said = await _run(trial, runtime, f"echo {_SAID}; exit {_CODE}", Limits(), image)
    if not ending.started:
        raise Unusable(f"a trial job did not start: {ending.error}", _mend(runtime.name, ending.error or ""))
    if ending.exit_code != _CODE or said.strip() != _SAID:
        raise Unusable(f"a trial job ended with {ending.exit_code} instead of {_CODE} and said {said.strip()[:200]!r}")


def _mend(name: RuntimeName, error: str) -> str | None:
    if name == "bubblewrap" and ("ermission" in error or "not permitted" in error):
        return (
            "allow user namespaces: sysctl kernel.unprivileged_userns_clone=1, and where there is AppArmor "
            "kernel.apparmor_restrict_unprivileged_userns=0"
        )
    if name in ("podman", "docker"):
        return f"make `{name} run` work for this user; NODE_PODMAN_ARGS and NODE_PODMAN_RUN_ARGS add to its words"
    return None


async def _try_limits(trial: _Trial, runtime: Runtime, image: str | None) -> tuple[bool, str]:
    """A job that breaks its limits unless they are real."""
    _, said = await _run(trial, runtime, _TRY_LIMITS, _LIMITS, image, seconds=30.0)
    lines = said.splitlines()
    broken = [] if any(line == "memory 0" for line in lines) else ["memory"]
    if "pids" not in lines or "unbounded" in lines:
        broken.append("pids")
    if image is not None and "cpu 50000" not in said:  # our own groups refuse what they cannot keep
        broken.append("cpu")
    if broken:
        return False, f"limits are not real: a trial job was not held by {', '.join(broken)}"
    return True, "limits memory, pids and cpu"


async def _run(
    trial: _Trial, runtime: Runtime, script: str, limits: Limits, image: str | None, seconds: float = 20.0
) -> tuple[Ending, str]:
    said = bytearray()

    async def started() -> None:
        pass

    async def output(stream: Stream, _offset: int, data: bytes) -> None:
        if stream == "stdout":
            said.extend(data)

    job = JobToRun(
        uuid4(), uuid4(), 1, uuid4(), "script", seconds, script, image=image, limits=limits, task_name="trial"
    )
    folder = folder_of(trial.settings.mounts, job.assignment_id)
    stop = Stop()
    try:
        ending = await runtime.run(job, folder, trial.mark(runtime.name), started, output, stop)
    finally:
        with trio.move_on_after(10, shield=True):
            await remove_folder(trial.processes, folder)
    return ending, said.decode(errors="replace")


def _check_way_in(trial: _Trial) -> None:
    """As root jobs run as users that must come through to their folders."""
    if not trial.uids.change:
        return
    for parent in trial.settings.mounts.resolve().parents:
        if not parent.stat().st_mode & 0o001:
            raise Unusable(
                f"jobs run as users of their own, who cannot pass {parent}",
                f"choose a state folder that others can pass through, such as /var/lib/cynode (or chmod o+x {parent})",
            )


def _program(trial: _Trial, name: str) -> str:
    path = trial.settings.tool_env.get("PATH", "") + f":{DEFAULT_PATH}:/run/current-system/sw/bin"
    found = shutil.which(name, path=path.lstrip(":"))
    if found is None:
        raise Unusable(f"{name} is not installed")
    return found


def _engine_env(given: Mapping[str, str]) -> dict[str, str]:
    own = {"PATH": DEFAULT_PATH, "HOME": "/"}
    with suppress(KeyError):  # a user without an entry
        own["HOME"] = pwd.getpwuid(os.geteuid()).pw_dir
    runtime_dir = Path(f"/run/user/{os.geteuid()}")
    if runtime_dir.is_dir():
        own["XDG_RUNTIME_DIR"] = str(runtime_dir)
    return {**own, **given}


async def _version(trial: _Trial, argv: tuple[str, ...] | list[str], env: Mapping[str, str]) -> str:
    ran = await trial.processes.run_tool(Command(argv, env))
    if ran.code != 0:
        raise Unusable((ran.stderr.strip() or f"{argv[0]} ended with {ran.code}")[-500:])
    return ran.stdout.strip()
