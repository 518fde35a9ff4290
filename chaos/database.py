"""The run's database: embedded PostgreSQL that is killed and frozen, and an audit of what no row alone can show."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import trio
from psycopg.rows import dict_row

from chaos.processes import children_of
from orchestrator.local.postgres import open_postgres
from orchestrator.local.state import open_state
from orchestrator.store.migrate import migrate_up

ANSWER_SECONDS = 30.0

# Triggers of the run, in a schema of its own: what changed after an attempt or a job had ended, and who was where.
AUDIT = """
CREATE SCHEMA chaos;
CREATE TABLE chaos.findings (at timestamptz DEFAULT clock_timestamp(), what text);
CREATE TABLE chaos.ends (job_id uuid, attempt int, outcome text, at timestamptz DEFAULT clock_timestamp());
CREATE TABLE chaos.lease_ends (node_id uuid, tx xid8 DEFAULT pg_current_xact_id());
CREATE TABLE chaos.lost (job_id uuid, attempt int, node_id uuid, tx xid8 DEFAULT pg_current_xact_id(), how text);

CREATE FUNCTION chaos.attempt_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.ended_at IS NOT NULL THEN
        IF (NEW.outcome, NEW.exit_code, NEW.error, NEW.ended_at, NEW.started_at)
           IS DISTINCT FROM (OLD.outcome, OLD.exit_code, OLD.error, OLD.ended_at, OLD.started_at) THEN
            INSERT INTO chaos.findings (what) VALUES (format('attempt %s of job %s changed after its end: %s became %s',
                OLD.attempt, OLD.job_id, OLD.outcome, NEW.outcome));
        END IF;
        IF (NEW.stdout_length, NEW.stderr_length) IS DISTINCT FROM (OLD.stdout_length, OLD.stderr_length)
           AND (OLD.outcome NOT IN ('canceled', 'timeout') OR OLD.stopped_at IS NOT NULL) THEN
            INSERT INTO chaos.findings (what) VALUES (format('attempt %s of job %s (%s) got output after its end',
                OLD.attempt, OLD.job_id, OLD.outcome));
        END IF;
    ELSIF NEW.ended_at IS NOT NULL THEN
        INSERT INTO chaos.ends (job_id, attempt, outcome) VALUES (NEW.job_id, NEW.attempt, NEW.outcome);
        IF NEW.outcome = 'lost' THEN
            INSERT INTO chaos.lost (job_id, attempt, node_id) VALUES (NEW.job_id, NEW.attempt, NEW.node_id);
        END IF;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER chaos AFTER UPDATE ON job_attempts FOR EACH ROW EXECUTE FUNCTION chaos.attempt_changed();

CREATE FUNCTION chaos.job_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.ended_at IS NOT NULL AND (NEW.status, NEW.attempt, NEW.error, NEW.ended_at)
       IS DISTINCT FROM (OLD.status, OLD.attempt, OLD.error, OLD.ended_at) THEN
        INSERT INTO chaos.findings (what) VALUES (format('job %s changed after its end: %s became %s',
            OLD.id, OLD.status, NEW.status));
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER chaos AFTER UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION chaos.job_changed();

CREATE FUNCTION chaos.lease_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos.lease_ends (node_id) VALUES (NEW.node_id);
    RETURN NULL;
END $$;
CREATE TRIGGER chaos AFTER UPDATE ON node_links FOR EACH ROW
    WHEN (OLD.lease = 'held' AND NEW.lease <> 'held') EXECUTE FUNCTION chaos.lease_changed();
"""


@dataclass
class PostgreSQL:
    dsn: str
    data: Path
    busy: bool = False

    def pids(self) -> list[int]:
        """The postmaster first."""
        try:
            master = int((self.data / "postmaster.pid").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return []
        return [master, *children_of(master)]

    async def kill(self) -> None:
        """It is started again by whoever keeps it running."""
        self._signal(self.pids()[:1], signal.SIGKILL)

    async def freeze(self, seconds: float) -> None:
        pids = self.pids()
        self._signal(pids, signal.SIGSTOP)
        try:
            await trio.sleep(seconds)
        finally:
            self._signal(pids, signal.SIGCONT)

    async def query(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        """Waits for a server that was just killed."""
        with trio.move_on_after(ANSWER_SECONDS):
            while True:
                with suppress(psycopg.OperationalError):
                    return await trio.to_thread.run_sync(self._query, statement, values)
                await trio.sleep(0.2)
        return await trio.to_thread.run_sync(self._query, statement, values)

    def _query(self, statement: str, values: tuple[Any, ...]) -> list[dict[str, Any]]:
        with psycopg.connect(self.dsn, autocommit=True, row_factory=dict_row, connect_timeout=5) as connection:
            done = connection.execute(statement.encode(), values or None)
            return done.fetchall() if done.description else []

    def _signal(self, pids: list[int], number: int) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


@asynccontextmanager
async def open_database(folder: Path) -> AsyncIterator[PostgreSQL]:
    with open_state(folder / "state") as state:
        async with open_postgres(state) as dsn:
            await migrate_up(dsn)
            found = PostgreSQL(dsn, state.path / "postgres" / "data")
            await found.query(AUDIT)
            yield found
