"""What every service is built with."""

from datetime import timedelta

from orchestrator.api.limits import Limits
from orchestrator.app.tokens import Lives, Tokens
from orchestrator.config import Settings
from orchestrator.store.db import Connection, Database
from orchestrator.store.schema import schema_fits


def http_limits(settings: Settings) -> Limits:
    return Limits(body_bytes=settings.max_request_body_mb << 20)


def tokens_of(settings: Settings) -> Tokens:
    previous = settings.jwt_secret_previous
    lives = Lives(
        timedelta(seconds=settings.jwt_access_duration),
        timedelta(seconds=settings.jwt_refresh_duration),
        timedelta(seconds=settings.jwt_node_duration),
    )
    return Tokens(settings.secret("jwt_secret"), None if previous is None else previous.get_secret_value(), lives)


class SchemaCheck:
    """For `/readyz`: the database answers, and its schema is one that this code knows."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def __call__(self) -> str | None:
        async def work(conn: Connection) -> str | None:
            return await schema_fits(conn)

        return await self._db.read(work)
