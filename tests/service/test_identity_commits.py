"""What a COMMIT whose answer was lost makes of logins, users and registrations: no error for what was stored."""

from collections.abc import AsyncIterator

import pytest

from identity import PASSWORD, SECRET, Identity, make_identity
from nodes_parts import PSK, new_key, report, sql
from orchestrator.app.node_configs import NodeConfigs
from orchestrator.app.registration import Application, Registration
from orchestrator.app.tokens import Tokens
from orchestrator.domain.access import NOWHERE
from orchestrator.domain.node_config import ConfigRules
from orchestrator.domain.users import Role
from orchestrator.store.db import Database, open_database
from tcp_proxy import Proxy, open_proxy

Far = tuple[Proxy, Database]


@pytest.fixture
async def far(database: str) -> AsyncIterator[Far]:
    """A database whose wire can be cut."""
    async with open_proxy(database) as proxy, open_database(proxy.dsn, pool_size=1) as db:
        yield proxy, db


@pytest.fixture
async def identity(far: Far) -> Identity:
    made = make_identity(far[1])
    await made.make_user("ann", Role.MEMBER)
    return made


@pytest.mark.parametrize("stored", [True, False])
async def test_a_login_and_a_refresh(far: Far, identity: Identity, stored: bool) -> None:
    proxy, db = far
    proxy.cut_at(b"COMMIT", deliver=stored)
    tokens = await identity.sessions.login("ann", PASSWORD, NOWHERE)
    assert (await identity.sessions.authenticate(tokens.access_token)).handle == "ann"
    proxy.cut_at(b"COMMIT", deliver=stored)
    fresh = await identity.sessions.refresh(tokens.refresh_token, NOWHERE)
    assert await identity.sessions.refresh(fresh.refresh_token, NOWHERE)
    assert await sql(db, "SELECT count(*) FROM refresh_sessions") == [(1,)]
    kept = await sql(db, "SELECT event_type, count(*) FROM auth_audit_log GROUP BY 1 ORDER BY 1")
    assert kept == [("login_success", 1), ("refresh_success", 2), ("user_created", 1)]


@pytest.mark.parametrize("stored", [True, False])
async def test_a_new_user(far: Far, identity: Identity, stored: bool) -> None:
    proxy, db = far
    proxy.cut_at(b"COMMIT", deliver=stored)
    bob = await identity.make_user("bob", Role.VIEWER)
    assert (await identity.users.get(bob.id)).roles == {Role.VIEWER}
    proxy.cut_at(b"COMMIT", deliver=stored)
    assert (await identity.users.make_first_admin(PASSWORD)).name in ("MADE", "NOT_NEEDED")
    assert await sql(db, "SELECT count(*) FROM users WHERE handle IN ('bob', 'admin')") == [(2,)]


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("keyed", [True, False])
async def test_a_registration(far: Far, stored: bool, keyed: bool) -> None:
    proxy, db = far
    registration = Registration(db, Tokens(SECRET), NodeConfigs(db, ConfigRules()), PSK)
    await registration.register(Application(report("n0"), PSK), "http://cp")
    proxy.cut_at(b"COMMIT", deliver=stored)
    done = await registration.register(Application(report(), PSK, node_key=new_key() if keyed else None), "http://cp")
    assert done.created
    assert (await registration.authenticate(done.token.text)).slug == "n1"
    assert await sql(db, "SELECT count(*) FROM node_configs") == [(2,)]
