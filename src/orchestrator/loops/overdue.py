"""The server's own net below the nodes' timeouts."""

from orchestrator.app.clock import now
from orchestrator.app.reports import LinkLost, Report
from orchestrator.domain.reports import Fact, Overdue
from orchestrator.links.registry import Registry, lost
from orchestrator.links.service import Submits


async def end_overdue(reports: Submits, registry: Registry) -> None:
    for link in registry.all():
        found: tuple[Fact, ...] = tuple(Overdue(ref, now(), outcome, error) for ref, outcome, error in link.overdue())
        if not found:
            continue
        try:
            link.committed(await reports.submit(Report(link.node_id, link.link_id, found)))
        except LinkLost as error:
            link.close(lost(error.other))
