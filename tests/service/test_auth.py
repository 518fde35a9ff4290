"""Logging in, refreshing, logging out, over a real port."""

from datetime import timedelta
from ipaddress import ip_network
from typing import Any

import httpx
import pytest
import trio

from identity import PASSWORD, Identity, bearer, gateway, log_in, log_in_as, make_identity
from orchestrator.app.clock import new_id, now
from orchestrator.app.tokens import Lives, Tokens
from orchestrator.domain.access import NOWHERE
from orchestrator.domain.errors import Unauthenticated
from orchestrator.domain.ids import NodeId, SessionId
from orchestrator.domain.users import Role
from orchestrator.store.db import Connection, Database


async def sql(db: Database, query: str, *args: Any) -> list[Any]:
    async def work(conn: Connection) -> list[Any]:
        return [tuple(row.values()) for row in await conn.fetch(query, *args)]

    return await db.transact(work)


async def refresh(client: httpx.AsyncClient, tokens: dict[str, Any]) -> httpx.Response:
    return await client.post("/v1/auth/refresh", json={"refresh_token": tokens["refresh_token"]})


async def me(client: httpx.AsyncClient, tokens: dict[str, Any]) -> int:
    return (await client.get("/v1/users/me", headers=bearer(tokens))).status_code


@pytest.fixture
async def identity(db: Database) -> Identity:
    made = make_identity(db)
    await made.make_user("ann", Role.MEMBER)
    return made


async def test_login_gives_tokens_that_work(identity: Identity) -> None:
    async with gateway(identity) as client:
        answer = await client.post("/v1/auth/login", json={"handle": "Ann", "password": PASSWORD})
        tokens = answer.json()
        assert answer.headers["cache-control"] == "no-store"
        assert tokens["token_type"] == "Bearer"
        assert tokens["expires_in"] == 900
        assert set(tokens) == {"access_token", "refresh_token", "token_type", "expires_in"}
        shown = await client.get("/v1/users/me", headers={"authorization": f"bEaReR   {tokens['access_token']}"})
    assert shown.json()["handle"] == "ann"
    assert shown.json()["roles"] == ["member"]
    assert "email" not in shown.json()


async def test_every_cause_of_a_refused_login_looks_alike(identity: Identity, db: Database) -> None:
    bob = await identity.make_user("bob")
    await sql(db, "UPDATE users SET is_active = false WHERE id = $1", bob.id)
    tries = [("ann", "wrong"), ("nobody", PASSWORD), ("bob", PASSWORD), ("system", "x" * 5000), ("ann\n'--", "x")]
    async with gateway(identity) as client:
        answers = [await client.post("/v1/auth/login", json={"handle": h, "password": p}) for h, p in tries]
    assert {answer.status_code for answer in answers} == {401}
    assert {answer.json()["detail"] for answer in answers} == {"Invalid credentials"}
    reasons = await sql(db, "SELECT subject_handle, reason FROM auth_audit_log WHERE event_type = 'login_failure'")
    assert ("ann", "wrong password") in reasons
    assert ("nobody", "unknown handle") in reasons
    assert ("bob", "disabled") in reasons


async def test_an_unknown_handle_takes_as_long_as_a_known_one(identity: Identity) -> None:
    async def seconds(handle: str) -> float:
        begun = trio.current_time()
        with pytest.raises(Unauthenticated):
            await identity.sessions.login(handle, "wrong", NOWHERE)
        return trio.current_time() - begun

    known, unknown = [], []
    for _ in range(4):
        known.append(await seconds("ann"))
        unknown.append(await seconds("nobody"))
    assert min(unknown) > min(known) / 2


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "Invalid request body"),
        (b"{", "Invalid request body"),
        (b"[]", "Invalid request body"),
        (b"{}", "Handle and password are required"),
        (b'{"handle": "", "password": "x"}', "Handle and password are required"),
        (b'{"handle": "ann"}', "Handle and password are required"),
        (b'{"handle": 1, "password": "x"}', "handle"),
        (b'{"handle": "a", "password": "x", "totp": "1"}', "totp"),
        (b'{"handle": "a\\u0000", "password": "x"}', "handle"),
        (b'{"handle": "a", "password": "\\ud800"}', "password"),
    ],
)
async def test_a_bad_login_body_is_named(db: Database, body: bytes, detail: str) -> None:
    async with gateway(make_identity(db)) as client:
        answer = await client.post("/v1/auth/login", content=body)
    assert answer.status_code == 400
    assert answer.json()["type"] == "urn:cynodeai:error:validation"
    assert detail in answer.json()["detail"]


async def test_refresh_rotates_and_the_old_token_is_worth_nothing(identity: Identity) -> None:
    async with gateway(identity) as client:
        first = await log_in(client, "ann")
        second = (await refresh(client, first)).json()
        assert second["refresh_token"] != first["refresh_token"]
        assert second["access_token"] != first["access_token"]
        again = await refresh(client, first)
        assert (again.status_code, again.json()["detail"]) == (401, "Invalid refresh token")
        assert await me(client, second) == 200
        assert (await refresh(client, second)).status_code == 200


async def test_of_twenty_refreshes_at_once_one_succeeds(identity: Identity) -> None:
    async with gateway(identity) as client:
        tokens = await log_in(client, "ann")
        answers: list[httpx.Response] = []

        async def one() -> None:
            answers.append(await refresh(client, tokens))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(one)
        winners = [answer for answer in answers if answer.status_code == 200]
        assert len(winners) == 1
        assert {answer.status_code for answer in answers} == {200, 401}
        assert await me(client, winners[0].json()) == 200
        assert (await refresh(client, winners[0].json())).status_code == 200


async def test_a_token_replayed_after_the_grace_ends_its_session_only(identity: Identity, db: Database) -> None:
    async with gateway(identity) as client:
        stolen, elsewhere = await log_in(client, "ann"), await log_in(client, "ann")
        current = (await refresh(client, stolen)).json()
        await sql(db, "UPDATE refresh_sessions SET rotated_at = rotated_at - interval '11 seconds'")
        assert (await refresh(client, stolen)).status_code == 401
        assert await me(client, current) == 401
        assert (await refresh(client, current)).status_code == 401
        assert await me(client, elsewhere) == 200
    events = await sql(db, "SELECT event_type, reason FROM auth_audit_log ORDER BY id")
    assert ("session_revoked", "replayed") in events


@pytest.mark.parametrize("body", [b"", b"{}", b'{"refresh_token": ""}', b'{"refresh_token": 7}', b'{"token": "x"}'])
async def test_a_bad_refresh_body_is_400(db: Database, body: bytes) -> None:
    async with gateway(make_identity(db)) as client:
        assert (await client.post("/v1/auth/refresh", content=body)).status_code == 400


async def test_logout_ends_the_session_at_once(identity: Identity) -> None:
    async with gateway(identity) as client:
        here, there = await log_in(client, "ann"), await log_in(client, "ann")
        out = await client.post("/v1/auth/logout", headers=bearer(here), json={"refresh_token": here["refresh_token"]})
        assert (out.status_code, out.content) == (204, b"")
        assert await me(client, here) == 401
        assert (await refresh(client, here)).status_code == 401
        assert await me(client, there) == 200
        assert (await client.post("/v1/auth/logout", headers=bearer(there))).status_code == 204
        assert await me(client, there) == 401


async def test_logout_does_not_end_anothers_session(identity: Identity) -> None:
    await identity.make_user("bob")
    async with gateway(identity) as client:
        ann, bob = await log_in(client, "ann"), await log_in(client, "bob")
        body = {"refresh_token": bob["refresh_token"]}
        assert (await client.post("/v1/auth/logout", headers=bearer(ann), json=body)).status_code == 204
        assert await me(client, bob) == 200
        assert (await refresh(client, bob)).status_code == 200
        assert (await client.post("/v1/auth/logout")).status_code == 401


async def test_each_kind_of_token_is_refused_where_another_is_asked_for(identity: Identity) -> None:
    node = identity.tokens.node(NodeId(new_id()), "n1", now()).text
    async with gateway(identity) as client:
        tokens = await log_in(client, "ann")
        for wrong in (tokens["refresh_token"], node):
            answer = await client.get("/v1/users/me", headers={"Authorization": f"Bearer {wrong}"})
            assert (answer.status_code, answer.json()["detail"]) == (401, "Invalid or expired token")
        for wrong in (tokens["access_token"], node):
            answer = await client.post("/v1/auth/refresh", json={"refresh_token": wrong})
            assert (answer.status_code, answer.json()["detail"]) == (401, "Invalid refresh token")


@pytest.mark.parametrize(
    ("header", "detail"),
    [
        (None, "Missing authorization header"),
        ("", "Missing authorization header"),
        ("Bearer", "Invalid or expired token"),
        ("Basic YTpi", "Invalid or expired token"),
        ("Bearer x", "Invalid or expired token"),
        ("Bearer a.b.c", "Invalid or expired token"),
        ("Bearer " + "W1tb" * 900 + ".e30.x", "Invalid or expired token"),
        ("Bearer " + "x" * 100_000, "Invalid or expired token"),
    ],
)
async def test_bad_authorization_headers(db: Database, header: str | None, detail: str) -> None:
    headers = {} if header is None else {"Authorization": header}
    async with gateway(make_identity(db)) as client:
        answer = await client.get("/v1/users/me", headers=headers)
    assert (answer.status_code, answer.json()["detail"]) == (401, detail)


async def test_a_token_of_another_secret_or_past_its_time_is_refused(identity: Identity, db: Database) -> None:
    ann = await sql(db, "SELECT id FROM users WHERE handle = 'ann'")
    async with gateway(identity) as client:
        tokens = await log_in(client, "ann")
        [(session,)] = await sql(db, "SELECT id FROM refresh_sessions")
        user, session = ann[0][0], SessionId(session)
        old = Tokens("another secret, as long as the first one", lives=Lives())
        bad = [
            old.access(user, "ann", session, now()).text,
            identity.tokens.access(user, "ann", session, now() - timedelta(hours=1)).text,
            identity.tokens.access(user, "ann", SessionId(new_id()), now()).text,
        ]
        for text in bad:
            assert await me(client, {"access_token": text}) == 401
        assert await me(client, tokens) == 200


async def test_what_the_previous_secret_signed_is_still_read(db: Database) -> None:
    tokens = Tokens("the new secret, long enough to be one", previous="the old secret, long enough to be one")
    user, session = NodeId(new_id()), now()
    text = Tokens("the old secret, long enough to be one").node(user, "n1", session).text
    assert tokens.read_node(text).node_id == user
    del db


async def test_a_disabled_user_is_refused_at_the_next_request(identity: Identity, db: Database) -> None:
    async with gateway(identity) as client:
        tokens = await log_in(client, "ann")
        await sql(db, "UPDATE users SET is_active = false WHERE handle = 'ann'")
        assert await me(client, tokens) == 401
        assert (await refresh(client, tokens)).status_code == 401


async def test_no_secret_is_stored_in_the_clear(identity: Identity, db: Database) -> None:
    async with gateway(identity) as client:
        tokens = await log_in(client, "ann")
    [(stored,)] = await sql(db, "SELECT password_hash FROM password_credentials LIMIT 1")
    assert bytes(stored).startswith(b"$argon2id$v=19$m=65536,t=3,p=1$")
    kept = await sql(db, "SELECT refresh_sessions::text FROM refresh_sessions")
    assert tokens["refresh_token"] not in str(kept)
    assert len((await sql(db, "SELECT refresh_token_hash FROM refresh_sessions"))[0][0]) == 32


async def test_logins_are_limited_by_address_whatever_x_forwarded_for_says(db: Database) -> None:
    async with gateway(make_identity(db, per_minute=5)) as client:
        answers = [
            await client.post(
                "/v1/auth/login",
                json={"handle": f"user{nth}", "password": "wrong"},
                headers={"X-Forwarded-For": f"10.0.0.{nth}"},
            )
            for nth in range(7)
        ]
    assert [answer.status_code for answer in answers] == [401] * 5 + [429] * 2
    assert answers[-1].json()["detail"] == "Too many login attempts"
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
    ips = await sql(db, "SELECT DISTINCT host(ip) FROM auth_audit_log")
    assert ips == [("127.0.0.1",)]


async def test_a_trusted_proxy_names_the_client(db: Database) -> None:
    identity = make_identity(db, per_minute=2, trusted=[ip_network("127.0.0.1/32"), ip_network("10.9.0.0/16")])

    async def attempt(client: httpx.AsyncClient, forwarded: str) -> int:
        body = {"handle": "nobody", "password": "wrong"}
        return (await client.post("/v1/auth/login", json=body, headers={"X-Forwarded-For": forwarded})).status_code

    async with gateway(identity) as client:
        assert [await attempt(client, "1.2.3.4") for _ in range(3)] == [401, 401, 429]
        assert (
            await attempt(client, "9.9.9.9, 1.2.3.4, 10.9.0.1") == 429
        )  # what the client wrote itself is not believed
        assert await attempt(client, "1.2.3.5") == 401
    assert ("1.2.3.4",) in await sql(db, "SELECT DISTINCT host(ip) FROM auth_audit_log")


async def test_failures_delay_one_handle_from_one_address_and_nobody_else(db: Database) -> None:
    identity = make_identity(db, trusted=[ip_network("127.0.0.1/32")])
    await identity.make_user("ann")

    async def attempt(client: httpx.AsyncClient, password: str, address: str) -> httpx.Response:
        body = {"handle": "ann", "password": password}
        return await client.post("/v1/auth/login", json=body, headers={"X-Forwarded-For": address})

    async with gateway(identity) as client:
        for _ in range(5):
            assert (await attempt(client, "wrong", "1.1.1.1")).status_code == 401
        held = await attempt(client, PASSWORD, "1.1.1.1")
        assert (held.status_code, held.headers["retry-after"]) == (429, "1")
        assert (await attempt(client, PASSWORD, "2.2.2.2")).status_code == 200
        assert await log_in_as(client, "ann")


async def test_only_so_many_wait_for_a_password_check(db: Database) -> None:
    identity = make_identity(db)
    codes: list[int] = []
    async with gateway(identity) as client, trio.open_nursery() as nursery:

        async def attempt(nth: int) -> None:
            body = {"handle": f"user{nth}", "password": "wrong"}
            codes.append((await client.post("/v1/auth/login", json=body)).status_code)

        for nth in range(40):
            nursery.start_soon(attempt, nth)
    assert set(codes) == {401, 429}
    assert codes.count(401) >= 18
