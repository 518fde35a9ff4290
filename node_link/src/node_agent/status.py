"""Says how the agent is, over a unix socket in its state folder: no port."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

SOCKET_NAME = "agent.sock"
_ANSWER_SECONDS = 5.0


async def serve_status(
    folder: Path, tell: Callable[[], dict[str, Any]], *, task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED
) -> None:
    """Each who connects gets one JSON object."""
    path = folder / SOCKET_NAME
    path.unlink(missing_ok=True)
    with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM) as listening:
        await listening.bind(_short(folder))
        path.chmod(0o600)
        listening.listen(8)
        task_status.started()
        try:
            while True:
                connection, _ = await listening.accept()
                with connection, trio.move_on_after(_ANSWER_SECONDS):
                    await _answer(connection, json.dumps(tell()).encode())
        finally:
            path.unlink(missing_ok=True)


async def _answer(connection: "trio.socket.SocketType", data: bytes) -> None:
    try:
        while data:
            data = data[await connection.send(data) :]
    except OSError:
        return  # whoever asked has gone


def _short(folder: Path) -> str:
    """A unix socket's path has 107 bytes at most; a state folder may have more."""
    path = str(folder / SOCKET_NAME)
    if len(os.fsencode(path)) < 107:
        return path
    # Left open on purpose: the path is valid as long as the descriptor is.
    return f"/proc/self/fd/{os.open(folder, os.O_PATH | os.O_CLOEXEC)}/{SOCKET_NAME}"


def ask(folder: Path) -> dict[str, Any]:
    """What the agent of this folder says. Raises OSError when there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_ANSWER_SECONDS)
        connection.connect(_short(folder))
        data = b"".join(iter(lambda: connection.recv(65536), b""))
    answer = json.loads(data)
    assert isinstance(answer, dict)
    return answer
