from collections.abc import AsyncIterator, Iterator

import pytest

from orchestrator.store.db import Database, open_database
from postgres_fixture import empty_database, make_template, postgres_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The DSN of this process's own server; its database is for making others."""
    with postgres_server() as dsn:
        yield dsn


@pytest.fixture(scope="session")
def template(postgres: str) -> str:
    return make_template(postgres)


@pytest.fixture
def database(postgres: str, template: str) -> Iterator[str]:
    """The DSN of a migrated database that only this test uses."""
    with empty_database(postgres, template) as dsn:
        yield dsn


@pytest.fixture
def bare_database(postgres: str) -> Iterator[str]:
    """The DSN of a database without a schema."""
    with empty_database(postgres) as dsn:
        yield dsn


@pytest.fixture
async def db(database: str) -> AsyncIterator[Database]:
    async with open_database(database, pool_size=5) as opened:
        yield opened
