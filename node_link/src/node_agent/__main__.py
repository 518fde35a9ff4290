"""The `cynode-node` command."""

import argparse
import ctypes
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from node_agent import logs
from node_agent.config import NodeConfig, load
from node_agent.settings import BadSetting
from node_agent.state import StateFolderUnusable, open_state

log = logging.getLogger("cynode.node")

_PR_SET_PDEATHSIG = 1
_PREDECESSOR_SECONDS = 6.0
"""How long an agent whose own parent was killed may take to end."""


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parse(argv)
    if arguments.version:
        from importlib.metadata import version

        sys.stdout.write(f"cynode-node {version('cynode-node')}\n")
        return 0
    try:
        config = load(file=arguments.config)
        if arguments.command == "doctor":
            from node_agent.doctor import doctor

            return doctor(config)
        if arguments.command == "status":
            return _status(config, as_json=arguments.json)
        return _run(config, die_with_parent=arguments.die_with_parent)
    except BadSetting as error:
        sys.stderr.write(f"cynode-node: {error}\n")
        return 2


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="cynode-node", description="The worker node agent of cynode.")
    parser.add_argument("--config", type=Path, help="a TOML or YAML file with settings (default: NODE_CONFIG_FILE)")
    parser.add_argument("--version", action="store_true", help="which cynode-node this is")
    parser.add_argument("--json", action="store_true", help="status as JSON")
    parser.add_argument(
        "--die-with-parent", action="store_true", help="stop when the process that started this one has ended"
    )
    parser.add_argument(
        "command",
        nargs="?",
        choices=("run", "doctor", "status"),
        default="run",
        help="run: the agent (default). doctor: which runtimes work, and what to install. status: how the agent is",
    )
    return parser.parse_args(argv)


def _status(config: NodeConfig, *, as_json: bool) -> int:
    if as_json:
        from node_agent.status import ask

        try:
            said = ask(config.state_dir)
        except OSError as error:
            said = {"live": False, "ready": False, "why_not": [str(error)]}
        sys.stdout.write(json.dumps(said) + "\n")
        return 0 if said["ready"] else 1
    from node_agent.doctor import status

    return status(config)


def _run(config: NodeConfig, *, die_with_parent: bool) -> int:
    import trio

    from node_agent.agent import Agent
    from node_agent.rest import PlaintextRefused
    from node_agent.sandbox.process import become_subreaper

    logs.set_up()
    if die_with_parent:
        _die_with_parent()
    try:
        with open_state(config.state_dir, patience=_PREDECESSOR_SECONDS if die_with_parent else 0) as state:
            become_subreaper()
            return trio.run(lambda: Agent.build(config, state).run())
    except (StateFolderUnusable, PlaintextRefused) as error:
        log.error("%s", error)
        return 1


def _die_with_parent() -> None:
    """SIGTERM when it ends, so that jobs are handed back as in any other stop."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
