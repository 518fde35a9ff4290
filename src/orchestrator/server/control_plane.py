"""The control-plane: one app with the links, and the loops behind it."""

import logging
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import trio

from node_link.messages import StopAll
from node_link.session import CloseCode
from orchestrator.api.serve import serve_http
from orchestrator.app.clock import new_id
from orchestrator.app.dispatch import Dispatch
from orchestrator.app.links import Links
from orchestrator.app.reports import Judged, Report, Reports
from orchestrator.app.retention import Retention
from orchestrator.config import Settings
from orchestrator.links.close import LinkClose
from orchestrator.links.registry import Registry
from orchestrator.links.service import LinkService
from orchestrator.loops.contact import Contact
from orchestrator.loops.dispatch import dispatch
from orchestrator.loops.due import promote_due
from orchestrator.loops.held import sync_held
from orchestrator.loops.nodes import NodeSync
from orchestrator.loops.overdue import end_overdue
from orchestrator.loops.reap import Reaper
from orchestrator.loops.reconciler import Reconciler
from orchestrator.loops.renew import Renewals
from orchestrator.server.common import http_limits
from orchestrator.server.control_plane_app import build_app
from orchestrator.store.batch import Batcher
from orchestrator.store.db import Database
from orchestrator.store.notify import listen

log = logging.getLogger(__name__)

POLL_SECONDS = 5.0
RETENTION_SECONDS = 3600.0
HAND_BACK_SECONDS = 4.0
GATHERED = 0.02
"""Of a heartbeat: so long renewals are gathered for one commit."""


async def serve_control_plane(
    settings: Settings,
    db: Database,
    dsn: str,
    *,
    stopping: trio.Event,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Runs until `stopping` is set and the links are closed; leases run on."""
    heartbeat = settings.node_heartbeat_seconds
    registry = Registry()
    links = Links(db, new_id())
    queue = Dispatch(db)
    retention = Retention(db, dropped_reports=timedelta(days=settings.retention_output_days))
    contact = Contact(links, registry, heartbeat_seconds=heartbeat)
    reports: Batcher[Report, Judged] = Batcher(
        Reports(db).write, weigh=lambda report: report.weight, when_away="keep", name="reports"
    )

    renewals = Renewals(links, registry, contact.succeeded, gather_seconds=GATHERED * heartbeat)
    reaper = Reaper(links, lease_seconds=settings.node_lease_seconds, heartbeat_seconds=heartbeat)
    sync = NodeSync(links, registry, lambda: loops["dispatch"].poke())
    loops = {
        "dispatch": Reconciler("dispatch", partial(dispatch, queue, registry), period=POLL_SECONDS),
        "renew": Reconciler("renew", renewals.renew, period=heartbeat),
        "held": Reconciler("held", partial(sync_held, links, registry), period=POLL_SECONDS),
        "due": Reconciler("due", partial(promote_due, queue), period=POLL_SECONDS),
        "nodes": Reconciler("nodes", sync.sync, period=6 * POLL_SECONDS),
        "overdue": Reconciler("overdue", partial(end_overdue, reports, registry), period=POLL_SECONDS),
        "tidy": Reconciler("tidy", queue.rest_empty_groups, period=2 * POLL_SECONDS),
        "retention": Reconciler("retention", retention.delete_old, period=RETENTION_SECONDS),
        "reap": Reconciler("reap", reaper.reap, period=heartbeat / 3),
    }

    renewals.poke = loops["renew"].poke

    def link_came() -> None:
        for name in ("dispatch", "held", "nodes"):
            loops[name].poke()

    service = partial(
        LinkService, links, reports, renewals.heard, registry, heartbeat, link_came, loops["dispatch"].poke
    )
    app = build_app(settings, db, registry, service)
    bells: dict[str, Callable[[], None]] = {
        "cynode_queue": loops["dispatch"].poke,
        "cynode_stops": loops["held"].poke,
        "cynode_due": loops["due"].poke,
        "cynode_nodes": loops["nodes"].poke,
    }
    async with trio.open_nursery() as background:
        await background.start(reports.run)
        background.start_soon(listen, dsn, bells)
        await background.start(contact.run)
        for loop in loops.values():
            await background.start(loop.run)
        await serve_http(
            app,
            settings.control_plane_listen_addr,
            shutdown=partial(_say_goodbye, stopping, registry, settings.shutdown_jobs == "stop"),
            limits=http_limits(settings),
            task_status=task_status,
        )
        background.cancel_scope.cancel()


async def _say_goodbye(stopping: trio.Event, registry: Registry, stop_jobs: bool) -> None:
    """Closes the links with 1001; before that, if so set, has the nodes hand back what they run."""
    await stopping.wait()
    registry.mode = "stopping"
    if stop_jobs:
        with trio.move_on_after(HAND_BACK_SECONDS):
            for link in registry.all():
                link.send(StopAll(reason="the orchestrator is stopping"))
            for link in registry.all():
                await link.empty.wait()
    registry.close_all(LinkClose(CloseCode.STOPPING, "this control-plane is stopping"))
    with trio.move_on_after(1.0):
        await registry.drained()
