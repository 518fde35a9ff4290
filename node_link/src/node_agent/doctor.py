"""`cynode-node doctor` and `cynode-node status`: what this node can do, why not more, and how its agent is."""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import trio

from node_agent.choose import sandbox_settings
from node_agent.config import NodeConfig
from node_agent.sandbox.process import Processes
from node_agent.sandbox.runtime import Found
from node_agent.sandbox.trial import find_runtimes
from node_agent.status import ask

DOCKER_NOTE = "built and tested by its arguments only: no docker engine ever ran this"


def doctor(config: NodeConfig, out: TextIO = sys.stdout) -> int:
    """Tries every runtime with a small job; 0 if one works that isolates."""
    with tempfile.TemporaryDirectory(prefix="cynode-doctor-") as folder:
        found = trio.run(_try, config, Path(folder))
    for one in found:
        _print_runtime(one, out)
    isolating = [one.name for one in found if one.runtime is not None and one.name not in ("process", "noop")]
    if isolating:
        print(f"\nJobs can run here, isolated by {', '.join(isolating)}.", file=out)
        return 0
    print("\nNothing here isolates a job. Install one of the packages named above.", file=out)
    return 1


async def _try(config: NodeConfig, folder: Path) -> list[Found]:
    settings = sandbox_settings(replace(config, slots=1), folder.name, folder)
    return await find_runtimes(settings, Processes())


def _print_runtime(one: Found, out: TextIO) -> None:
    state = "works" if one.runtime is not None else "missing"
    print(f"{one.name:<11} {state:<8} {one.detail}", file=out)
    if one.runtime is not None and not one.runtime.limits and one.name != "noop":
        print(f"{'':<20} memory, CPU and process limits are not real here: jobs that name them go elsewhere", file=out)
    if one.install:
        print(f"{'':<20} to mend it: {one.install}", file=out)
    if one.name == "docker":
        print(f"{'':<20} {DOCKER_NOTE}", file=out)


def status(config: NodeConfig, out: TextIO = sys.stdout) -> int:
    """0 if the agent of this state folder lives and is ready."""
    try:
        said = ask(config.state_dir)
    except OSError as error:
        print(f"no agent runs on {config.state_dir}: {error.strerror or error}", file=out)
        return 1
    print(f"node      {said['node_slug']} ({said['agent_version']})", file=out)
    print("live      yes", file=out)
    print(f"ready     {'yes' if said['ready'] else 'no: ' + '; '.join(said['why_not'])}", file=out)
    print(f"slots     {said['free_slots']} of {said['slots']} free, {len(said['held'])} attempts held", file=out)
    print(f"runtimes  {', '.join(said['offered']) or 'none'}", file=out)
    print(f"config    {said['config_version'] or 'none'}", file=out)
    spool = said["spool"]
    print(f"spool     {spool['unacknowledged']} records unacknowledged, {spool['bytes']} bytes", file=out)
    return 0 if said["ready"] else 1
