"""Users over a real port: making them, changing what they may do, and who may not."""

from typing import Any

import httpx
import pytest
import trio

from identity import PASSWORD, Identity, bearer, gateway, log_in, log_in_as, make_identity
from orchestrator.app.clock import new_id
from orchestrator.app.users import FirstAdmin
from orchestrator.domain.errors import Invalid
from orchestrator.domain.ids import SYSTEM_USER
from orchestrator.domain.users import Role
from orchestrator.store.db import Connection, Database


async def sql(db: Database, query: str, *args: Any) -> list[Any]:
    async def work(conn: Connection) -> list[Any]:
        return [tuple(row.values()) for row in await conn.fetch(query, *args)]

    return await db.transact(work)


@pytest.fixture
async def identity(db: Database) -> Identity:
    made = make_identity(db)
    await made.make_user("root", Role.ADMIN)
    await made.make_user("ann", Role.MEMBER)
    return made


async def user_id(db: Database, handle: str) -> str:
    return str((await sql(db, "SELECT id FROM users WHERE handle = $1", handle))[0][0])


async def test_a_user_is_made_with_a_default_project(identity: Identity, db: Database) -> None:
    async with gateway(identity) as client:
        root = await log_in_as(client, "root")
        body = {"handle": "Bob.B", "password": PASSWORD, "email": "bob@example.org", "roles": ["viewer", "operator"]}
        made = await client.post("/v1/users", headers=root, json=body)
        assert made.status_code == 201
        shown = made.json()
        assert shown | {"id": ""} == {
            "id": "",
            "handle": "bob.b",
            "email": "bob@example.org",
            "is_active": True,
            "roles": ["operator", "viewer"],
        }
        bob = await log_in_as(client, "bob.b")
        assert (await client.get("/v1/users/me", headers=bob)).json() == shown
        plain = await client.post("/v1/users", headers=root, json={"handle": "carl", "password": PASSWORD})
        assert plain.json()["roles"] == ["member"]
        assert "email" not in plain.json()
    projects = await sql(db, "SELECT slug FROM projects WHERE default_of = $1::text::uuid", shown["id"])
    assert projects == [("default-bob.b",)]


@pytest.mark.parametrize("handle", ["system", "SYSTEM", "ann", "Ann"])
async def test_a_taken_or_reserved_handle_is_409(identity: Identity, handle: str) -> None:
    async with gateway(identity) as client:
        root = await log_in_as(client, "root")
        answer = await client.post("/v1/users", headers=root, json={"handle": handle, "password": PASSWORD})
    assert answer.status_code == 409
    assert answer.json()["type"] == "urn:cynodeai:error:conflict"


async def test_of_many_who_want_a_handle_one_gets_it(identity: Identity, db: Database) -> None:
    codes: list[int] = []
    async with gateway(identity) as client:
        root = await log_in_as(client, "root")

        async def want() -> None:
            answer = await client.post("/v1/users", headers=root, json={"handle": "zoe", "password": PASSWORD})
            codes.append(answer.status_code)

        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(want)
    assert sorted(codes) == [201] + [409] * 5
    assert len(await sql(db, "SELECT 1 FROM projects WHERE slug = 'default-zoe'")) == 1


BAD_USERS = [
    ({"password": PASSWORD}, "Handle and password are required"),
    ({"handle": "", "password": PASSWORD}, "Handle and password are required"),
    ({"handle": "a b", "password": PASSWORD}, "handle"),
    ({"handle": "é", "password": PASSWORD}, "handle"),
    ({"handle": "x" * 65, "password": PASSWORD}, "handle"),
    ({"handle": "a\n", "password": PASSWORD}, "handle"),
    ({"handle": "bob", "password": "short"}, "password"),
    ({"handle": "bob", "password": "x" * 1025}, "password"),
    ({"handle": "bob", "password": 12345678}, "password"),
    ({"handle": "bob", "password": PASSWORD, "email": "nobody"}, "email"),
    ({"handle": "bob", "password": PASSWORD, "email": "a@" + "b" * 300}, "email"),
    ({"handle": "bob", "password": PASSWORD, "roles": ["king"]}, "king"),
    ({"handle": "bob", "password": PASSWORD, "roles": "admin"}, "roles"),
    ({"handle": "bob", "password": PASSWORD, "is_admin": True}, "is_admin"),
    ({"handle": "bob\u0000", "password": PASSWORD}, "handle"),
]


async def test_a_bad_user_is_400_and_the_field_is_named(identity: Identity, db: Database) -> None:
    before = await sql(db, "SELECT count(*) FROM users")
    async with gateway(identity) as client:
        root = await log_in_as(client, "root")
        for body, named in BAD_USERS:
            answer = await client.post("/v1/users", headers=root, json=body)
            assert (answer.status_code, named in answer.json()["detail"]) == (400, True), (body, answer.text)
            assert PASSWORD not in answer.text
    assert await sql(db, "SELECT count(*) FROM users") == before


async def test_an_email_belongs_to_one_user(identity: Identity) -> None:
    async with gateway(identity) as client:
        root = await log_in_as(client, "root")
        answers = [
            await client.post(
                "/v1/users", headers=root, json={"handle": handle, "password": PASSWORD, "email": "x@example.org"}
            )
            for handle in ("bob", "carl")
        ]
    assert [answer.status_code for answer in answers] == [201, 409]
    assert "e-mail" in answers[1].json()["detail"]


async def test_what_is_for_admins_is_refused_to_others(identity: Identity, db: Database) -> None:
    ann = await user_id(db, "ann")
    calls = [
        ("POST", "/v1/users"),
        ("GET", "/v1/users"),
        *(
            ("POST", f"/v1/users/{ann}/{verb}")
            for verb in ("disable", "enable", "reset_password", "roles", "revoke_sessions")
        ),
    ]
    async with gateway(identity) as client:
        member = await log_in_as(client, "ann")
        for method, path in calls:
            refused = await client.request(method, path, headers=member)
            assert (refused.status_code, refused.json()["detail"]) == (403, "Admin required"), path
            nobody = await client.request(method, path)
            assert (nobody.status_code, nobody.json()["detail"]) == (401, "Missing authorization header"), path


async def test_admin_rights_follow_the_binding_at_the_next_request(identity: Identity, db: Database) -> None:
    ann = await user_id(db, "ann")
    async with gateway(identity) as client:
        root, member = await log_in_as(client, "root"), await log_in_as(client, "ann")
        roles = f"/v1/users/{ann}/roles"
        assert (await client.post(roles, headers=root, json={"add": ["admin"]})).status_code == 204
        assert (await client.get("/v1/users", headers=member)).status_code == 200
        assert (await client.post(roles, headers=root, json={"remove": ["admin"]})).status_code == 204
        assert (await client.get("/v1/users", headers=member)).status_code == 403
        for body in ({}, {"add": ["king"]}, {"add": "admin"}, {"set": []}):
            assert (await client.post(roles, headers=root, json=body)).status_code == 400, body
    events = await sql(db, "SELECT reason FROM auth_audit_log WHERE event_type = 'roles_changed' ORDER BY id")
    assert events == [("+admin",), ("-admin",)]


async def test_a_project_binding_makes_no_admin(identity: Identity, db: Database) -> None:
    await sql(
        db,
        """INSERT INTO role_bindings (subject_type, subject_id, role_id, scope_type, scope_id)
           SELECT 'user', u.id, r.id, 'project', p.id FROM users u, roles r, projects p
            WHERE u.handle = 'ann' AND r.name = 'admin' AND p.default_of = u.id RETURNING id""",
    )
    async with gateway(identity) as client:
        assert (await client.get("/v1/users", headers=await log_in_as(client, "ann"))).status_code == 403


async def test_disable_ends_everything_and_enable_brings_the_user_back(identity: Identity, db: Database) -> None:
    ann = await user_id(db, "ann")
    async with gateway(identity) as client:
        root, tokens = await log_in_as(client, "root"), await log_in(client, "ann")
        for _ in range(2):
            assert (await client.post(f"/v1/users/{ann}/disable", headers=root)).status_code == 204
        assert (await client.get("/v1/users/me", headers=bearer(tokens))).status_code == 401
        refused = await client.post("/v1/auth/login", json={"handle": "ann", "password": PASSWORD})
        assert refused.json()["detail"] == "Invalid credentials"
        assert (await client.post(f"/v1/users/{ann}/enable", headers=root)).status_code == 204
        assert (await client.get("/v1/users/me", headers=bearer(tokens))).status_code == 401
        assert await log_in(client, "ann")
    events = [row[0] for row in await sql(db, "SELECT event_type FROM auth_audit_log ORDER BY id")]
    assert events.count("user_disabled") == 1
    assert events.count("user_reenabled") == 1


async def test_a_reset_password_ends_the_sessions(identity: Identity, db: Database) -> None:
    ann = await user_id(db, "ann")
    async with gateway(identity) as client:
        root, tokens = await log_in_as(client, "root"), await log_in(client, "ann")
        path = f"/v1/users/{ann}/reset_password"
        for bad in ({}, {"password": "short"}, {"password": "long enough", "old": "x"}):
            assert (await client.post(path, headers=root, json=bad)).status_code == 400
        assert (await client.get("/v1/users/me", headers=bearer(tokens))).status_code == 200
        assert (await client.post(path, headers=root, json={"password": "another password"})).status_code == 204
        assert (await client.get("/v1/users/me", headers=bearer(tokens))).status_code == 401
        old = await client.post("/v1/auth/login", json={"handle": "ann", "password": PASSWORD})
        assert old.status_code == 401
        assert await log_in(client, "ann", "another password")


async def test_revoke_sessions_ends_those_of_every_device(identity: Identity, db: Database) -> None:
    ann = await user_id(db, "ann")
    async with gateway(identity) as client:
        root = await log_in_as(client, "root")
        devices = [await log_in(client, "ann") for _ in range(2)]
        assert (await client.post(f"/v1/users/{ann}/revoke_sessions", headers=root)).status_code == 204
        for tokens in devices:
            body = {"refresh_token": tokens["refresh_token"]}
            assert (await client.post("/v1/auth/refresh", json=body)).status_code == 401
            assert (await client.get("/v1/users/me", headers=bearer(tokens))).status_code == 401


async def test_a_user_who_is_not_there_is_404(identity: Identity) -> None:
    async with gateway(identity) as client:
        root = await log_in_as(client, "root")
        for who in (str(new_id()), "ann", "%00", "x" * 300):
            for verb, body in (
                ("disable", None),
                ("enable", None),
                ("revoke_sessions", None),
                ("reset_password", {"password": PASSWORD}),
                ("roles", {"add": ["viewer"]}),
            ):
                answer = await client.post(f"/v1/users/{who}/{verb}", headers=root, json=body)
                assert (answer.status_code, answer.json()["detail"]) == (404, "User not found"), (who, verb)


async def test_the_system_user_cannot_be_changed(identity: Identity) -> None:
    async with gateway(identity) as client:
        root = await log_in_as(client, "root")
        for verb, body in (
            ("disable", None),
            ("reset_password", {"password": PASSWORD}),
            ("roles", {"add": ["admin"]}),
        ):
            answer = await client.post(f"/v1/users/{SYSTEM_USER}/{verb}", headers=root, json=body)
            assert answer.status_code == 409, verb


async def test_the_last_admin_stays(identity: Identity, db: Database) -> None:
    root_id = await user_id(db, "root")
    async with gateway(identity) as client:
        root = await log_in_as(client, "root")
        remove = {"remove": ["admin", "owner"]}
        assert (await client.post(f"/v1/users/{root_id}/disable", headers=root)).status_code == 409
        assert (await client.post(f"/v1/users/{root_id}/roles", headers=root, json=remove)).status_code == 409
        assert (await client.get("/v1/users/me", headers=root)).json()["roles"] == ["admin"]


async def test_two_admins_cannot_remove_each_other_at_once(identity: Identity, db: Database) -> None:
    other = await identity.make_user("other", Role.ADMIN)
    root_id = await user_id(db, "root")
    codes: list[int] = []
    async with gateway(identity) as client:
        root, second = await log_in_as(client, "root"), await log_in_as(client, "other")

        async def remove(headers: dict[str, str], whom: str) -> None:
            answer = await client.post(f"/v1/users/{whom}/roles", headers=headers, json={"remove": ["admin"]})
            codes.append(answer.status_code)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(remove, root, str(other.id))
            nursery.start_soon(remove, second, root_id)
    assert await identity.users.has_admin()
    assert codes.count(204) == 1


async def test_the_list_is_paged(identity: Identity) -> None:
    async with gateway(identity) as client:
        root = await log_in_as(client, "root")
        handles, cursor, pages = [], None, 0
        while True:
            query = {"limit": "1"} | ({"cursor": cursor} if cursor else {})
            page = (await client.get("/v1/users", headers=root, params=query)).json()
            handles += [user["handle"] for user in page["users"]]
            pages += 1
            cursor = page.get("next_cursor")
            if cursor is None:
                break
        assert (handles, pages) == (["ann", "root", "system"], 3)
        for query in (
            {"limit": "0"},
            {"limit": "201"},
            {"limit": "x"},
            {"limit": "-1"},
            {"cursor": "!"},
            {"cursor": "AA"},
        ):
            answer = await client.get("/v1/users", headers=root, params=query)
            assert (answer.status_code, answer.json()["detail"]) == (400, "Invalid limit or cursor"), query


async def test_the_first_admin_is_made_once_however_many_start(db: Database) -> None:
    identity, made = make_identity(db), []

    async def start() -> None:
        made.append(await identity.users.make_first_admin(PASSWORD))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(start)
    assert sorted(each.name for each in made) == ["MADE"] + ["NOT_NEEDED"] * 3
    assert await identity.users.make_first_admin("short") is FirstAdmin.NOT_NEEDED
    async with gateway(identity) as client:
        assert (await client.get("/v1/users", headers=await log_in_as(client, "admin"))).status_code == 200


async def test_the_first_admin_needs_a_password_and_a_free_handle(db: Database) -> None:
    identity = make_identity(db)
    with pytest.raises(Invalid, match="password"):
        await identity.users.make_first_admin("short")
    await identity.make_user("admin")
    assert await identity.users.make_first_admin(PASSWORD) is FirstAdmin.HANDLE_TAKEN


async def test_every_change_leaves_an_audit_row(identity: Identity, db: Database) -> None:
    async with gateway(identity) as client:
        root = await log_in_as(client, "root")
        headers = root | {"User-Agent": "a test"}
        body = {"handle": "bob", "password": PASSWORD}
        bob: httpx.Response = await client.post("/v1/users", headers=headers, json=body)
        path = f"/v1/users/{bob.json()['id']}"
        await client.post(f"{path}/disable", headers=headers)
        await client.post(f"{path}/enable", headers=headers)
        await client.post(f"{path}/reset_password", headers=headers, json=body | {"handle": ""})
        await client.post(f"{path}/reset_password", headers=headers, json={"password": PASSWORD})
        await client.post(f"{path}/revoke_sessions", headers=headers)
        await client.post("/v1/auth/logout", headers=headers)
    rows = await sql(
        db,
        """SELECT a.event_type, a.success, host(a.ip), a.user_agent, b.handle FROM auth_audit_log a
             JOIN users b ON b.id = a.actor_id WHERE a.subject_handle = 'bob' ORDER BY a.id""",
    )
    events = ["user_created", "user_disabled", "user_reenabled", "password_reset", "session_revoked"]
    assert rows == [(event, True, "127.0.0.1", "a test", "root") for event in events]
    assert (await sql(db, "SELECT count(*) FROM auth_audit_log WHERE event_type = 'logout'")) == [(1,)]
