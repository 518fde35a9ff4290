"""Comes back just when the next delayed job, or the next queue deadline, is due by the database's clock."""

from orchestrator.app.dispatch import Dispatch


async def promote_due(queue: Dispatch) -> float | None:
    return await queue.promote_due()
