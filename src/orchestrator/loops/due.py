"""Comes back just when the next delayed job, or the next queue deadline, is due."""

from orchestrator.app.clock import now
from orchestrator.app.dispatch import Dispatch


async def promote_due(queue: Dispatch) -> float | None:
    next_at = await queue.promote_due()
    return None if next_at is None else (next_at - now()).total_seconds()
