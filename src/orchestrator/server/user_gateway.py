"""The user gateway: one app, group commit behind its writes, one watch behind its streams."""

import logging
import socket
from collections.abc import Sequence

import trio
from quart_trio import QuartTrio

from orchestrator.api.auth import UserGate
from orchestrator.api.health import Check, health_routes
from orchestrator.api.serve import serve_http
from orchestrator.app.events import TaskEvents
from orchestrator.app.join_tokens import JoinTokens
from orchestrator.app.login_limits import LoginLimits
from orchestrator.app.nodes import Nodes
from orchestrator.app.passwords import Passwords
from orchestrator.app.principals import Principals
from orchestrator.app.results import Results
from orchestrator.app.sandbox_rule import SandboxRule
from orchestrator.app.sessions import Sessions
from orchestrator.app.submit import Submissions
from orchestrator.app.tasks import Tasks
from orchestrator.app.users import FirstAdmin, Users
from orchestrator.app.watch import Watch
from orchestrator.config import Settings
from orchestrator.domain.errors import DatabaseAway
from orchestrator.domain.jobspec import JobRules
from orchestrator.server.common import SchemaCheck, http_limits, tokens_of
from orchestrator.store.db import Database
from orchestrator.store.notify import listen
from orchestrator.user_gateway.app import create_user_gateway
from orchestrator.user_gateway.auth import auth_routes
from orchestrator.user_gateway.events import event_routes
from orchestrator.user_gateway.jobs import job_routes
from orchestrator.user_gateway.node_tokens import node_token_routes
from orchestrator.user_gateway.nodes import node_routes
from orchestrator.user_gateway.queue import queue_routes
from orchestrator.user_gateway.tasks import task_routes
from orchestrator.user_gateway.users import user_routes

log = logging.getLogger(__name__)
ADMIN_RETRY_SECONDS = 1.0
MAKE_ADMIN = "make one with `cynode user create HANDLE --admin --database`"


async def serve_user_gateway(
    settings: Settings,
    db: Database,
    dsn: str,
    *,
    stopping: trio.Event,
    sockets: Sequence[socket.socket] = (),
    workers: int = 1,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Runs until `stopping` is set; streams are ended then, requests in hand get a moment.

    As one of several `workers` it listens on sockets that were opened for it, and allows its share of logins.
    """
    passwords = Passwords()
    users = Users(db, passwords)
    principals = Principals(db)
    sessions = Sessions(
        db, tokens_of(settings), passwords, LoginLimits(max(1, settings.rate_limit_per_minute // workers)), principals
    )
    watch = Watch(db)
    submissions = Submissions(db)
    app = build_app(settings, db, users, sessions, submissions, watch)

    async def shutdown() -> None:
        await stopping.wait()
        watch.close()

    async with trio.open_nursery() as background:
        await background.start(principals.run)
        await background.start(submissions.run)
        await background.start(watch.run)
        background.start_soon(listen, dsn, {"cynode_tasks": watch.ring})
        background.start_soon(_first_admin, users, settings)
        await serve_http(
            app,
            sockets or settings.user_gateway_listen_addr,
            shutdown=shutdown,
            limits=http_limits(settings),
            task_status=task_status,
        )
        background.cancel_scope.cancel()


def build_app(
    settings: Settings, db: Database, users: Users, sessions: Sessions, submissions: Submissions, watch: Watch
) -> QuartTrio:
    gate = UserGate(sessions.authenticate, settings.trusted_proxies)
    nodes = Nodes(db)
    tasks = Tasks(db, submissions, JobRules(default_attempts=settings.job_max_attempts))
    results = Results(db, watch)
    rule = SandboxRule(db, process_for_admins_only=settings.process_jobs == "admins")
    checks: list[Check] = [SchemaCheck(db)]
    if settings.ready_requires == "node":
        checks.append(nodes.why_not_dispatchable)
    return create_user_gateway(
        [
            health_routes(checks),
            auth_routes(sessions, gate),
            user_routes(users, sessions, gate),
            task_routes(tasks, results, gate, rule),
            event_routes(TaskEvents(db, watch), gate, sessions.revalidate),
            job_routes(results, gate),
            queue_routes(tasks, gate),
            node_routes(nodes, gate),
            node_token_routes(JoinTokens(db), gate),
        ]
    )


async def _first_admin(users: Users, settings: Settings) -> None:
    """Once the database is there: makes the first admin, or says how to make one."""
    password = settings.bootstrap_admin_password
    while True:
        try:
            if password is not None:
                made = await users.make_first_admin(password.get_secret_value())
                if made is FirstAdmin.MADE:
                    log.info("made the first admin: handle admin, with BOOTSTRAP_ADMIN_PASSWORD")
                elif made is FirstAdmin.HANDLE_TAKEN:
                    log.warning("there is no admin, and the handle admin is taken: %s", MAKE_ADMIN)
            elif not await users.has_admin():
                log.warning("there is no admin yet: %s", MAKE_ADMIN)
        except DatabaseAway:
            await trio.sleep(ADMIN_RETRY_SECONDS)
        else:
            return
