"""Gives queued jobs to linked nodes until either runs out."""

from orchestrator.app.dispatch import Dispatch
from orchestrator.links.registry import Registry

AGAIN_SECONDS = 0.02
"""Two control-planes look at the same groups first; who took none of them goes on with the next."""
LATER_SECONDS = 0.25
"""After a claim that took all it found: for a row whose lock was somebody's who then let it go without a word."""


async def dispatch(queue: Dispatch, registry: Registry) -> float | None:
    """One claim serves all links; the assignments leave as soon as their commit is back. When to come again."""
    while registry.mode == "serving":
        nodes = [room for link in registry.all() if (room := link.open()) is not None]
        if not nodes:
            return None
        claim = await queue.claim(nodes)
        for node, jobs in claim.given.items():
            link = registry.get(node)
            if link is not None:  # else it is settled by the node's next hello
                link.give(jobs)
        registry.lost(claim.not_mine)
        if claim.given and claim.exhausted:
            return LATER_SECONDS
        if not claim.given and not claim.not_mine:
            return AGAIN_SECONDS if claim.passed_over else None
    return None
