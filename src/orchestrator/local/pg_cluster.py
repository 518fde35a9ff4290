"""One PostgreSQL cluster in a folder: made once, started as a child that never outlives this process."""

import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from orchestrator.local.pg_binaries import Account, check_reachable, choose_account, find_binaries
from orchestrator.local.state import CannotStart, StateFolder, sync_folder

ROLE = DATABASE = "cynode"
LONGEST_SOCKET = 100  # bytes of the whole path; the kernel's limit is 107
BIGGEST_LOG = 10 << 20
SMALL_AND_SAFE = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "shared_buffers": "32MB",
    "max_connections": "100",
    "max_wal_size": "256MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_parallel_workers_per_gather": "0",
    "log_checkpoints": "off",
    "huge_pages": "off",
}
_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Cluster:
    bin_dir: Path
    account: Account
    folder: Path
    socket_folder: Path
    password: str

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def dsn(self) -> str:
        return f"postgresql://{ROLE}:{self.password}@/{DATABASE}?host={quote(str(self.socket_folder), safe='/')}"


def prepare_cluster(state: StateFolder, bin_dir: Path | None) -> Cluster:
    """Everything up to the start; what a killed earlier try left half made is made anew."""
    account = choose_account()
    folder = state.subfolder("postgres")
    account.own(folder)
    check_reachable(folder, account)
    found = find_binaries(bin_dir, state.path, account)
    cluster = Cluster(found, account, folder, _socket_folder(folder, account), state.secret("database-password"))
    if not cluster.data.is_dir():
        _make(cluster)
    if cluster.log.exists() and cluster.log.stat().st_size > BIGGEST_LOG:
        cluster.log.rename(cluster.log.with_suffix(".old"))
    return cluster


def clear_away(cluster: Cluster) -> None:
    """The socket's folder, where it is not in the state folder: nobody would ever look for it there."""
    _forget_outside(cluster.folder / "socket-folder")


def _forget_outside(note: Path) -> None:
    if note.exists():
        shutil.rmtree(note.read_text(), ignore_errors=True)
        note.unlink()


def _socket_folder(folder: Path, account: Account) -> Path:
    """Inside the state folder if the path is short enough for a socket, else a new private one for each start."""
    inside = folder / "run"
    note = folder / "socket-folder"
    _forget_outside(note)
    if len(os.fsencode(inside)) + len("/.s.PGSQL.5432") <= LONGEST_SOCKET:
        inside.mkdir(mode=0o700, exist_ok=True)
        account.own(inside)
        return inside
    outside = Path(tempfile.mkdtemp(prefix="cynode-"))
    account.own(outside)
    note.write_text(str(outside))
    return outside


def _make(cluster: Cluster) -> None:
    """In a draft folder that takes its name when it is whole, so that a killed initdb is simply done again."""
    draft = cluster.folder / "data.draft"
    shutil.rmtree(draft, ignore_errors=True)
    with tempfile.NamedTemporaryFile("w", dir=cluster.folder, prefix="pw-") as pwfile:
        pwfile.write(cluster.password)
        pwfile.flush()
        cluster.account.own(Path(pwfile.name))
        _run(cluster, ["initdb", "-D", draft, "-U", ROLE, "--pwfile", pwfile.name, "--auth=scram-sha-256", "-E", "UTF8",
                       "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"])  # fmt: skip
    _run(cluster, ["postgres", "--single", "-D", draft, "postgres"], f"CREATE DATABASE {DATABASE}\n")
    draft.rename(cluster.data)
    sync_folder(cluster.folder)


def _run(cluster: Cluster, command: list[str | Path], text: str = "") -> None:
    done = subprocess.run(
        [cluster.bin_dir / command[0], *command[1:]],
        input=text,
        text=True,
        capture_output=True,
        check=False,
        timeout=120,
        **_as(cluster.account, signal.SIGKILL),
    )
    if done.returncode != 0 or "FATAL" in done.stderr or "ERROR" in done.stderr:
        raise CannotStart(
            f"{command[0]} could not make the database in {cluster.folder}: {done.stderr.strip()[-2000:]}"
        )


def start(cluster: Cluster, settings: dict[str, str] | None = None) -> "subprocess.Popen[bytes]":
    """To be called on a thread that lives as long as the server should: its end is the server's."""
    options = SMALL_AND_SAFE | {"unix_socket_directories": f'"{cluster.socket_folder}"'} | (settings or {})
    arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    with cluster.log.open("ab") as log:
        return subprocess.Popen(
            [cluster.bin_dir / "postgres", "-D", cluster.data, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            **_as(cluster.account, signal.SIGINT),
        )


def _as(account: Account, death: signal.Signals) -> dict[str, Any]:
    """How a child runs: as the account, in its own group (Ctrl-C is not for it), ended by `death` when we die."""
    parent = os.getpid()

    def in_the_child() -> None:
        os.setpgid(0, 0)
        _libc.prctl(_PR_SET_PDEATHSIG, death)
        if os.getppid() != parent:
            os._exit(1)

    kind: dict[str, Any] = {"preexec_fn": in_the_child, "cwd": "/"}
    kind["env"] = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
    if account.uid is not None:
        kind |= {"user": account.uid, "group": account.gid, "extra_groups": []}
    return kind


def is_ready(cluster: Cluster, pid: int) -> bool:
    """What pg_ctl looks at: the server writes its state into the eighth line of its pid file."""
    try:
        lines = (cluster.data / "postmaster.pid").read_text().splitlines()
    except (FileNotFoundError, PermissionError):
        return False
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def disown_dead(cluster: Cluster) -> None:
    """For a killed server that nobody reaps, as where pid 1 takes no orphans: to the next one it seems to run still.

    PostgreSQL takes lock files with its parent's pid for stale ones, and then looks whether its memory is in use.
    """
    for lock in (cluster.data / "postmaster.pid", *cluster.socket_folder.glob(".s.PGSQL.*.lock")):
        try:
            first, newline, rest = lock.read_text().partition("\n")
            state = Path(f"/proc/{int(first)}/stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, ValueError):
            continue
        if state == "Z":
            lock.write_text(f"{os.getpid()}{newline}{rest}")


def what_it_said(cluster: Cluster, since: int) -> str:
    with cluster.log.open("rb") as log:
        log.seek(since)
        return log.read(100_000).decode(errors="replace")


def is_still_leaving(said: str) -> bool:
    """The server of a killed process shuts down a moment later; until then it holds its lock file or its memory."""
    return "lock file" in said or "shared memory block" in said
