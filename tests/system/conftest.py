from collections.abc import AsyncIterator, Iterator

import pytest

from postgres_fixture import empty_database, make_template, postgres_server
from world import World, open_world


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
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
async def world(database: str) -> AsyncIterator[World]:
    async with open_world(database) as made:
        yield made
