"""The one node that `cynode up` runs beside the services: the agent's own command, in a process of its own."""

import json
import logging
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from orchestrator.local.children import Process, end, wait_ended
from orchestrator.local.state import append_private

log = logging.getLogger(__name__)
STOP = ((signal.SIGTERM, 3.5), (signal.SIGKILL, 1.0))
"""It hands back its jobs first."""
AGAIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class LocalNode:
    """What its agent is told. Its own environment is ours, without our secrets."""

    state_dir: Path
    orchestrator_url: str
    psk_file: Path
    log_file: Path
    slug: str = "local"

    def environment(self) -> dict[str, str]:
        ours = {
            name: value for name, value in os.environ.items() if not name.endswith(("_SECRET", "_PASSWORD", "_PSK"))
        }
        ours.pop("DATABASE_URL", None)
        return {
            "NODE_ALLOW_PROCESS": "fallback",
            **ours,
            "NODE_SLUG": self.slug,
            "NODE_STATE_DIR": str(self.state_dir),
            "NODE_PSK_FILE": str(self.psk_file),
            "ORCHESTRATOR_URL": self.orchestrator_url,
        }

    def start(self) -> Process:
        """In a process group of its own: a Ctrl-C at the terminal is for us, and we tell it then."""
        with append_private(self.log_file) as out:
            return subprocess.Popen(
                [sys.executable, "-m", "node_agent", "run", "--die-with-parent"],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                process_group=0,
            )

    async def status(self) -> dict[str, Any]:
        """What the agent says of itself: `linked`, `why_not`, `offered`."""
        command = [sys.executable, "-m", "node_agent", "--json", "status"]
        done = await trio.run_process(
            command, env=self.environment(), capture_stdout=True, stderr=subprocess.DEVNULL, check=False
        )
        return dict(json.loads(done.stdout or b"{}"))


async def run_node(node: LocalNode, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Runs the agent, and again should it end, until cancelled; then it gets a moment to hand back its jobs."""
    while True:
        process = node.start()
        task_status.started()
        task_status = trio.TASK_STATUS_IGNORED
        try:
            await wait_ended(process)
        finally:
            with trio.CancelScope(shield=True):
                await end(process, STOP)
        log.error("the local node ended (%s) and is started again: see %s", process.returncode, node.log_file)
        await trio.sleep(AGAIN_SECONDS)
