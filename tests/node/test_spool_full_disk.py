"""A disk that is really full: new work is refused, output waits, and every end that was promised is still written."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import trio

from node.agent_process import environment
from node.fake_server import open_fake_server

SCRIPT = Path(__file__).with_name("full_disk.py")


def test_on_a_full_disk_ends_are_kept_and_nothing_else_is_taken(tmp_path: Path) -> None:
    command = f'mount -t tmpfs -o size=2m none "{tmp_path}" && exec "{sys.executable}" "{SCRIPT}" "{tmp_path}"'
    done = subprocess.run(["unshare", "-rm", "sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "refused": 40,
        "output_blocked": True,
        "output_after_room": True,
        "ends": 20,
        "unfinished": 0,
        "sent": 20,
    }


def test_an_agent_that_starts_on_a_full_disk_says_so_and_ends(tmp_path: Path) -> None:
    """Met by chaos, seed 6: it ended with a traceback."""
    python = f'"{sys.executable}" -m node_agent'
    command = (
        f'mount -t tmpfs -o size=2m none "{tmp_path}" && mkdir -m 700 "{tmp_path}/n" && cd "{tmp_path}" && '
        f"({python} run & pid=$!; until [ -S n/agent.sock ]; do sleep 0.05; done; kill -9 $pid; wait $pid); "
        f"head -c 4m /dev/zero > filler; {python} run; echo code $?"
    )
    settings = {"NODE_STATE_DIR": str(tmp_path / "n"), "NODE_RUNTIME": "noop", "NODE_ALLOW_NOOP": "1", "NODE_SLUG": "n"}
    nobody = {"ORCHESTRATOR_URL": "http://127.0.0.1:9", "NODE_REGISTRATION_PSK": "p" * 40}
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], **settings, **nobody},
        timeout=60,
    )
    assert "code 1" in done.stdout, done.stderr
    assert "cannot be opened: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


async def test_an_agent_that_is_restarted_with_room_for_its_spool_alone_links_again(tmp_path: Path) -> None:
    """Met by chaos, seed 7: it noted once more that it is registered, and ended with a traceback."""
    async with open_fake_server() as server:
        with killed_and_restarted_on_a_full_disk(environment(server.url, tmp_path / "n"), tmp_path) as shell:
            first = await server.linked()
            assert shell.stdin is not None
            shell.stdin.write(b"fill it\n")
            shell.stdin.flush()
            again = await server.linked()
            assert again.hello["agent_start_id"] != first.hello["agent_start_id"]
            assert again.hello["spool_id"] == first.hello["spool_id"]
            shell.terminate()
            with trio.fail_after(20):
                assert await trio.to_thread.run_sync(shell.wait, abandon_on_cancel=True) == 0


@contextmanager
def killed_and_restarted_on_a_full_disk(env: dict[str, str], folder: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """An agent on a disk of 2 MiB; a line of input fills it but for one page, and starts the agent anew."""
    agent = f'"{sys.executable}" -m node_agent run'
    command = (
        f'mount -t tmpfs -o size=2m none "{folder}" && cd "{folder}" && mkdir -m 700 n || exit; {agent} & read line; '
        f"kill -9 $!; wait $!; head -c 4m /dev/zero > filler; truncate -s -4096 filler; exec {agent}"
    )
    whole = ["unshare", "-rm", "sh", "-c", command]
    with subprocess.Popen(whole, env=env, stdin=subprocess.PIPE, process_group=0) as shell:
        try:
            yield shell
        finally:
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
