"""How much waits, how much runs, and how fast it goes."""

from orchestrator.domain.queue import QueueFigures
from orchestrator.store.db import Connection

FIGURES = """
    SELECT (SELECT count(*) FROM jobs WHERE status = 'queued' AND not_before IS NULL) AS queued,
           (SELECT count(*) FROM jobs WHERE status = 'queued' AND not_before IS NOT NULL) AS delayed,
           (SELECT count(*) FROM jobs WHERE status = 'assigned') AS assigned,
           (SELECT count(*) FROM jobs WHERE status = 'running') AS running,
           (SELECT extract(epoch FROM now() - min(created_at))::float8 FROM jobs WHERE status = 'queued') AS oldest,
           (SELECT count(*) FROM jobs WHERE ended_at > now() - make_interval(secs => $1)) AS ended,
           (SELECT count(*) FROM node_links WHERE link_id IS NOT NULL) AS links
"""
WINDOW_SECONDS = 60


async def read_queue_figures(conn: Connection) -> QueueFigures:
    row = await conn.fetchrow(FIGURES, float(WINDOW_SECONDS))
    assert row is not None
    return QueueFigures(
        queued=row["queued"],
        delayed=row["delayed"],
        assigned=row["assigned"],
        running=row["running"],
        oldest_age_seconds=None if row["oldest"] is None else round(max(0.0, row["oldest"]), 3),
        ended_per_second=round(row["ended"] / WINDOW_SECONDS, 3),
        links=row["links"],
    )
