"""The embedded PostgreSQL: what is killed comes back with everything that was committed, and nobody else is touched."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import trio

from orchestrator.local.pg_binaries import Account, find_binaries
from orchestrator.local.postgres import open_postgres
from orchestrator.local.state import CannotStart, open_state
from postgres_fixture import in_memory, open_folder, run_sql

HOLDER = """
import sys, time
from pathlib import Path
import trio
from orchestrator.local.postgres import open_postgres
from orchestrator.local.state import open_state

async def main():
    with open_state(Path(sys.argv[1])) as state:
        async with open_postgres(state) as dsn:
            print(dsn, flush=True)
            await trio.sleep_forever()

trio.run(main)
"""


@pytest.fixture
def place() -> Iterator[Path]:
    with open_folder(in_memory()) as folder:
        yield folder / "a state folder"


class Holder:
    """A process that holds the server as `cynode up` does."""

    def __init__(self, place: Path) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", HOLDER, str(place)], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.dsn = self.process.stdout.readline().strip()
        assert self.dsn, "it did not start"

        self.server = int((place / "postgres" / "data" / "postmaster.pid").read_text().split("\n")[0])

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def interrupt(self) -> None:
        self._end(signal.SIGINT)

    def _end(self, how: signal.Signals) -> None:
        self.process.send_signal(how)
        self.process.wait(10)
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture
def holders() -> Iterator[list[Holder]]:
    started: list[Holder] = []
    yield started
    for holder in started:
        holder.kill()
        wait_for_end(holder.server)


def wait_for_end(pid: int) -> None:
    """A server whose holder was killed ends by itself, a moment later."""
    deadline = time.monotonic() + 15
    while is_alive(pid):
        assert time.monotonic() < deadline, "the server outlived its holder"
        time.sleep(0.02)


def read(dsn: str) -> list[tuple[int]]:
    with psycopg.connect(dsn) as conn:
        return conn.execute("SELECT n FROM kept ORDER BY n").fetchall()


def read_if_there(dsn: str) -> list[tuple[int]] | None:
    try:
        return read(dsn)
    except psycopg.OperationalError:
        return None


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except FileNotFoundError:
        return False


def test_it_is_closed_to_others_and_keeps_its_data(place: Path, holders: list[Holder]) -> None:
    holders.append(first := Holder(place))
    run_sql(first.dsn, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (1)")
    with psycopg.connect(first.dsn) as conn:
        assert conn.execute("SHOW listen_addresses").fetchone() == ("",)
        assert conn.execute("SHOW fsync").fetchone() == ("on",)
        assert conn.execute("SELECT datcollate, pg_encoding_to_char(encoding) FROM pg_database LIMIT 1").fetchone()
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(first.dsn.replace(first.dsn.split(":")[2].split("@")[0], "wrong"))
    assert place.stat().st_mode & 0o077 == (0o011 if os.geteuid() == 0 else 0)
    assert (place / "database-password").stat().st_mode & 0o077 == 0
    first.interrupt()
    assert not (place / "postgres" / "data" / "postmaster.pid").exists()
    holders.append(second := Holder(place))
    assert read(second.dsn) == [(1,)]


def test_the_server_ends_with_a_killed_parent_and_starts_again_at_once(place: Path, holders: list[Holder]) -> None:
    holders.append(first := Holder(place))
    run_sql(first.dsn, "CREATE TABLE kept (n int)")
    for n in range(3):
        run_sql(holders[-1].dsn, f"INSERT INTO kept VALUES ({n})")  # noqa: S608
        server = holders[-1].server
        holders[-1].kill()
        holders.append(Holder(place))
        assert not is_alive(server)
        assert holders[-1].server != server
    assert read(holders[-1].dsn) == [(0,), (1,), (2,)]


def test_both_killed_lose_nothing(place: Path, holders: list[Holder]) -> None:
    holders.append(first := Holder(place))
    run_sql(first.dsn, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7)")
    server = first.server
    os.kill(server, signal.SIGKILL)
    first.kill()
    holders.append(second := Holder(place))
    assert read(second.dsn) == [(7,)]


def test_a_killed_server_is_started_again_on_the_same_socket(place: Path, holders: list[Holder]) -> None:
    holders.append(holder := Holder(place))
    run_sql(holder.dsn, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7)")
    os.kill(holder.server, signal.SIGKILL)
    deadline = time.monotonic() + 15
    while (rows := read_if_there(holder.dsn)) is None:
        assert holder.process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert rows == [(7,)]
    holder.server = int((place / "postgres" / "data" / "postmaster.pid").read_text().split("\n")[0])


def test_a_server_that_is_killed_in_mid_start_is_started_once_more(place: Path, holders: list[Holder]) -> None:
    """Met by chaos-check: a second kill -9 during the recovery from the first ended everything."""
    holders.append(holder := Holder(place))
    run_sql(holder.dsn, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (4)")
    killed = holder.server
    os.kill(killed, signal.SIGKILL)
    deadline = time.monotonic() + 20
    for _ in range(2):
        while (server := server_of(place) or killed) == killed:
            assert time.monotonic() < deadline, "it was not started again"
            time.sleep(0.001)
        os.kill(killed := server, signal.SIGKILL)
    while read_if_there(holder.dsn) != [(4,)]:
        assert time.monotonic() < deadline, "it did not come back"
        time.sleep(0.05)
    holder.server = server_of(place) or killed
    assert holder.process.poll() is None


def server_of(place: Path) -> int | None:
    try:
        return int((place / "postgres" / "data" / "postmaster.pid").read_text().split("\n")[0])
    except (FileNotFoundError, ValueError):
        return None


def test_a_stale_pid_file_that_names_a_stranger_harms_nobody(place: Path, holders: list[Holder]) -> None:
    holders.append(first := Holder(place))
    pid_file = place / "postgres" / "data" / "postmaster.pid"
    text = pid_file.read_text()
    os.kill(first.server, signal.SIGKILL)
    first.kill()
    with subprocess.Popen(["sleep", "60"]) as stranger:
        pid_file.write_text("\n".join([str(stranger.pid), *text.split("\n")[1:]]))
        holders.append(Holder(place))
        assert stranger.poll() is None
        stranger.kill()


def test_a_half_made_cluster_is_made_anew(place: Path, holders: list[Holder]) -> None:
    holders.append(first := Holder(place))
    first.interrupt()
    (place / "postgres" / "data").rename(place / "postgres" / "data.draft")
    (place / "postgres" / "data.draft" / "PG_VERSION").unlink()
    holders.append(second := Holder(place))
    run_sql(second.dsn, "SELECT 1")


def test_a_taken_state_folder_is_named(place: Path, holders: list[Holder]) -> None:
    holders.append(first := Holder(place))
    with pytest.raises(CannotStart, match=rf"{place}.*process {first.process.pid}"), open_state(place):
        pass


def test_a_folder_with_other_things_in_it_is_left_alone(place: Path) -> None:
    place.mkdir(mode=0o755)
    (place / "holiday.jpg").touch()
    with pytest.raises(CannotStart, match="holds other things"), open_state(place):
        pass
    assert place.stat().st_mode & 0o777 == 0o755


def test_a_secret_is_made_once(place: Path) -> None:
    with open_state(place) as state:
        assert state.secret("a") == state.secret("a") != state.secret("b")
        assert len(state.secret("a").encode()) >= 32


def test_a_long_path_gets_its_socket_elsewhere_and_clears_it_away(place: Path, holders: list[Holder]) -> None:
    long = place / ("x" * 60) / ("y" * 60)
    place.mkdir()
    (place / ("x" * 60)).mkdir()
    for folder in (place, place / ("x" * 60)):
        folder.chmod(0o711)
    holders.append(first := Holder(long))
    run_sql(first.dsn, "SELECT 1")
    outside = Path((long / "postgres" / "socket-folder").read_text())
    assert outside.stat().st_mode & 0o077 == 0
    first.kill()
    holders.append(second := Holder(long))
    run_sql(second.dsn, "SELECT 1")
    assert not outside.exists()
    outside = Path((long / "postgres" / "socket-folder").read_text())
    second.interrupt()
    assert not outside.exists()


async def test_what_is_wrong_with_the_server_is_told(place: Path) -> None:
    with open_state(place) as state:
        with pytest.raises(BaseExceptionGroup) as caught:
            async with open_postgres(state, settings={"shared_buffers": "much"}):
                raise AssertionError("it must not start")
        assert caught.group_contains(CannotStart, match="shared_buffers")


async def test_binaries_that_are_not_there_are_named(place: Path, tmp_path: Path) -> None:
    with open_state(place) as state, pytest.raises(CannotStart, match="PG_BIN_DIR"):
        async with open_postgres(state, bin_dir=tmp_path):
            pass


def test_a_copy_of_the_binaries_is_made_once_and_is_open_to_all(tmp_path: Path) -> None:
    account = Account(65534, 65534)
    first = find_binaries(None, tmp_path, account)
    assert find_binaries(None, tmp_path, account) == first
    assert first.is_relative_to(tmp_path)
    assert (first / "postgres").stat().st_mode & 0o777 == 0o755
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has an account to keep out")
def test_a_path_that_the_account_cannot_pass_is_named(place: Path) -> None:
    place.mkdir(mode=0o700)
    with open_state(place / "state") as state, pytest.raises(CannotStart, match=f"pass through {place}"):
        trio.run(_open, state)


async def _open(state: object) -> None:
    async with open_postgres(state):  # type: ignore[arg-type]
        raise AssertionError("it must not start")
