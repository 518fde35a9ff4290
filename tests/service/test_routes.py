"""Every route of both services × success, bad input, and each class of caller. A route without a row here fails."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest

from nodes_parts import PSK, new_key, report
from orchestrator.api.limits import Limits
from orchestrator.app.clock import new_id
from orchestrator.app.links import Links
from orchestrator.app.login_limits import LoginLimits
from orchestrator.app.passwords import Passwords
from orchestrator.app.principals import Principals
from orchestrator.app.sessions import Sessions
from orchestrator.app.submit import Submissions
from orchestrator.app.users import Users
from orchestrator.app.watch import Watch
from orchestrator.links.registry import Registry
from orchestrator.server.common import tokens_of
from orchestrator.server.control_plane_app import build_app as build_control_plane
from orchestrator.server.user_gateway import build_app as build_user_gateway
from orchestrator.store.db import Database
from route_world import RouteWorld, open_routes, route_settings

SCRIPT = {"prompt": "echo hi", "input_mode": "script"}
PASSWORD = "correct horse battery staple"
Make = Callable[[RouteWorld], Awaitable[dict[str, Any]]]
"""What a request needs: `path` parts by name, `json`, `params`, `headers`; made anew for each."""


async def nothing(_world: RouteWorld) -> dict[str, Any]:
    return {}


def body(**fields: Any) -> Make:
    async def make(_world: RouteWorld) -> dict[str, Any]:
        return {"json": fields}

    return make


@dataclass(frozen=True)
class Row:
    """`who` may: anyone, user (each that is logged in), owner, admin or node; others get what they get everywhere."""

    who: str
    status: int
    make: Make = nothing
    bad: tuple[tuple[dict[str, Any], int, str], ...] = ()
    """(what is put over the request, its status, a word of the answer)."""
    unknown: str = ""
    """What a name in the path that does not exist is answered with (404)."""
    takes_body: bool = False
    ignores_fields: bool = False


def bad(status: int, word: str, **over: Any) -> tuple[dict[str, Any], int, str]:
    return over, status, word


async def own_task(world: RouteWorld) -> dict[str, Any]:
    return {"path": {"task": (await world.task())["id"]}}


async def own_ended_task(world: RouteWorld) -> dict[str, Any]:
    task = (await world.task())["id"]
    await world.gateway.post(f"/v1/tasks/{task}/cancel", headers=world.callers["owner"])
    return {"path": {"task": task}}


async def own_job(world: RouteWorld) -> dict[str, Any]:
    task = await world.task()
    shown = await world.gateway.get(f"/v1/tasks/{task['id']}/result", headers=world.callers["owner"])
    return {"path": {"job": shown.json()["jobs"][0]["id"]}}


async def a_user(world: RouteWorld) -> dict[str, Any]:
    return {"path": {"user": str((await world.user("member"))[0])}}


def a_user_and(**fields: Any) -> Make:
    async def make(world: RouteWorld) -> dict[str, Any]:
        return {**await a_user(world), "json": fields}

    return make


async def a_node(world: RouteWorld) -> dict[str, Any]:
    return {"path": {"slug": await world.node()}}


async def a_join_token(world: RouteWorld) -> dict[str, Any]:
    answer = await world.gateway.post("/v1/node-tokens", headers=world.callers["admin"])
    return {"path": {"token": answer.json()["id"]}}


async def a_login(world: RouteWorld) -> dict[str, Any]:
    if not world.login:  # once: a password costs a tenth of a second to set
        user, _, _ = await world.user("member", password=PASSWORD)
        world.login["handle"] = str(await world.rows.one("SELECT handle FROM users WHERE id = $1", user))
    return {"json": {**world.login, "password": PASSWORD}}


async def a_refresh(world: RouteWorld) -> dict[str, Any]:
    return {"json": {"refresh_token": (await world.user("member"))[2]}}


async def a_new_user(_world: RouteWorld) -> dict[str, Any]:
    return {"json": {"handle": f"x{uuid4().hex[:8]}", "password": PASSWORD}}


async def a_registration(_world: RouteWorld) -> dict[str, Any]:
    return {"json": {"psk": PSK, "node_key": new_key(), "capability": report(f"n{uuid4().hex[:8]}")}}


async def a_node_key(world: RouteWorld) -> dict[str, Any]:
    return {"json": {"node_slug": "n1", "node_key": world.node_key}}


async def its_ack(world: RouteWorld) -> dict[str, Any]:
    config = (await world.plane.get("/v1/nodes/config", headers=world.callers["node"])).json()
    version = config["config_version"]
    return {"json": {"version": 1, "node_slug": "n1", "config_version": version, "ack_at": "x", "status": "applied"}}


async def its_report(_world: RouteWorld) -> dict[str, Any]:
    return {"json": report("n1")}


PAGES = (bad(400, "limit", params={"limit": "0"}), bad(400, "cursor", params={"cursor": "?"}))
NOBODYS = "Task not found"
ROWS: dict[str, Row] = {
    "gateway GET /healthz": Row("anyone", 200),
    "gateway GET /readyz": Row("anyone", 200),
    "gateway POST /v1/auth/login": Row(
        "anyone", 200, a_login, takes_body=True,
        bad=(bad(401, "Invalid credentials", json={"handle": "admin", "password": "wrong"}),
             bad(400, "Handle and password are required", json={"handle": "admin"})),
    ),
    "gateway POST /v1/auth/refresh": Row(
        "anyone", 200, a_refresh, takes_body=True,
        bad=(bad(401, "Invalid refresh token", json={"refresh_token": "x"}), bad(400, "", json={})),
    ),
    "gateway POST /v1/auth/logout": Row("user", 204, bad=(bad(400, "refresh_token", json={"refresh_token": 1}),)),
    "gateway GET /v1/users/me": Row("user", 200),
    "gateway POST /v1/users": Row(
        "admin", 201, a_new_user, takes_body=True,
        bad=(bad(400, "handle", json={"handle": "A B", "password": PASSWORD}),
             bad(400, "NUL", json={"handle": "nul", "password": "x\0" * 10}),
             bad(400, "roles", json={"handle": "ok", "password": PASSWORD, "roles": ["king"]}),
             bad(409, "", json={"handle": "system", "password": PASSWORD})),
    ),
    "gateway GET /v1/users": Row("admin", 200, bad=PAGES),
    "gateway POST /v1/users/<user>/revoke_sessions": Row("admin", 204, a_user, unknown="User not found"),
    "gateway POST /v1/users/<user>/disable": Row("admin", 204, a_user, unknown="User not found"),
    "gateway POST /v1/users/<user>/enable": Row("admin", 204, a_user, unknown="User not found"),
    "gateway POST /v1/users/<user>/reset_password": Row(
        "admin", 204, a_user_and(password=PASSWORD), takes_body=True, unknown="User not found",
        bad=(bad(400, "password", json={"password": 1}), bad(400, "password", json={"password": ""})),
    ),
    "gateway POST /v1/users/<user>/roles": Row(
        "admin", 204, a_user_and(add=["operator"]), takes_body=True, unknown="User not found",
        bad=(bad(400, "add", json={}), bad(400, "add", json={"add": ["king"]})),
    ),
    "gateway POST /v1/tasks": Row(
        "user", 201, body(**SCRIPT), takes_body=True,
        bad=(bad(400, "prompt", json={}), bad(400, "prompt", json={"prompt": ""}),
             bad(400, "input_mode", json={**SCRIPT, "input_mode": "shell"}),
             bad(400, "prompt", json={**SCRIPT, "prompt": "a\0b"}),
             bad(400, "timeout_seconds", json={**SCRIPT, "job": {"timeout_seconds": 10**9}}),
             bad(400, "env", json={**SCRIPT, "job": {"env": {"CYNODE_X": "1"}}}),
             bad(404, "", json={**SCRIPT, "project_id": str(uuid4())}),
             bad(400, "project_id", json={**SCRIPT, "project_id": "x"}),
             bad(503, "no inference path available", json={"prompt": "write a poem"}),
             bad(413, "", json={**SCRIPT, "prompt": "x" * (257 << 10)})),
    ),
    "gateway POST /v1/tasks/batch": Row(
        "user", 201, body(tasks=[SCRIPT, SCRIPT]), takes_body=True,
        bad=(bad(400, "tasks", json={"tasks": [SCRIPT] * 1001}), bad(400, "tasks", json={"tasks": [{}]})),
    ),
    "gateway GET /v1/tasks": Row(
        "user", 200,
        bad=(bad(400, "Invalid limit, offset, or cursor", params={"limit": "201"}),
             bad(400, "Invalid limit, offset, or cursor", params={"offset": "1", "cursor": "x"}),
             bad(400, "Invalid status", params={"status": "pending"})),
    ),
    "gateway GET /v1/tasks/<task>": Row("owner", 200, own_task, unknown=NOBODYS),
    "gateway POST /v1/tasks/<task>/cancel": Row("owner", 200, own_task, unknown=NOBODYS),
    "gateway GET /v1/tasks/<task>/result": Row(
        "owner", 200, own_task, unknown=NOBODYS,
        bad=(bad(400, "wait", params={"wait": "61"}), bad(400, "wait", params={"wait": "soon"})),
    ),
    "gateway GET /v1/tasks/<task>/logs": Row(
        "owner", 200, own_task, unknown=NOBODYS,
        bad=(bad(400, "stream", params={"stream": "stdin"}), bad(400, "attempt", params={"attempt": "0"})),
    ),
    "gateway GET /v1/tasks/<task>/events": Row("owner", 200, own_ended_task, unknown=NOBODYS),
    "gateway GET /v1/jobs/<job>": Row("owner", 200, own_job, unknown="Job not found"),
    "gateway GET /v1/queue": Row("user", 200),
    "gateway GET /v1/nodes": Row("user", 200, bad=PAGES),
    "gateway GET /v1/nodes/<slug>": Row("user", 200, a_node, unknown="Node not found"),
    "gateway POST /v1/nodes/<slug>/drain": Row("admin", 200, a_node, unknown="Node not found"),
    "gateway POST /v1/nodes/<slug>/enable": Row("admin", 200, a_node, unknown="Node not found"),
    "gateway POST /v1/nodes/<slug>/disable": Row("admin", 200, a_node, unknown="Node not found"),
    "gateway POST /v1/node-tokens": Row(
        "admin", 201,
        bad=(bad(400, "uses", json={"uses": 0}), bad(400, "slug", json={"slug": "A B"}),
             bad(400, "expires_in", json={"expires_in": -1})),
    ),
    "gateway GET /v1/node-tokens": Row("admin", 200, bad=PAGES),
    "gateway GET /v1/node-tokens/<token>": Row("admin", 200, a_join_token, unknown="not found"),
    "gateway DELETE /v1/node-tokens/<token>": Row("admin", 204, a_join_token, unknown="not found"),
    "plane GET /healthz": Row("anyone", 200),
    "plane GET /readyz": Row("anyone", 200),
    "plane POST /v1/nodes/register": Row(
        "anyone", 201, a_registration, takes_body=True, ignores_fields=True,
        bad=(bad(401, "Invalid registration PSK", json={"psk": "x", "capability": report("nx")}),
             bad(400, "Node slug is required", json={"psk": PSK, "capability": {"version": 1}}),
             bad(409, "", json={"psk": PSK, "capability": report("n1")})),
    ),
    "plane POST /v1/nodes/token": Row(
        "anyone", 200, a_node_key, takes_body=True, ignores_fields=True,
        bad=(bad(401, "", json={"node_slug": "n1", "node_key": new_key()}),
             bad(401, "", json={"node_slug": "nobody", "node_key": new_key()})),
    ),
    "plane GET /v1/nodes/config": Row("node", 200),
    "plane POST /v1/nodes/config": Row(
        "node", 204, its_ack, takes_body=True, ignores_fields=True,
        bad=(bad(400, "node_slug does not match", json={"version": 1, "node_slug": "n2", "config_version": "x",
                                                        "ack_at": "x", "status": "applied"}),
             bad(400, "status", json={"version": 1, "node_slug": "n1", "config_version": "x", "status": "perhaps"})),
    ),
    "plane POST /v1/nodes/capability": Row(
        "node", 204, its_report, takes_body=True, ignores_fields=True,
        bad=(bad(400, "unsupported-payload-version", json={**report("n1"), "version": 2}),
             bad(400, "", json=report("n2"))),
    ),
    "plane WEBSOCKET /v1/nodes/link": Row("node", 101),
}  # fmt: skip
"""The link's own rows are tests/service/test_link_upgrade.py: what it answers before the upgrade, to each caller."""


def routes_of(service: str, app: Any) -> Iterable[str]:
    for rule in app.url_map.iter_rules():
        if rule.endpoint == "static":
            continue
        methods = {"WEBSOCKET"} if rule.websocket else set(rule.methods) - {"HEAD", "OPTIONS"}
        yield from (f"{service} {method} {rule.rule}" for method in methods)


async def test_every_route_has_a_row_and_every_row_a_route(db: Database) -> None:
    settings, passwords = route_settings(), Passwords()
    sessions = Sessions(db, tokens_of(settings), passwords, LoginLimits(60), Principals(db))
    gateway = build_user_gateway(settings, db, Users(db, passwords), sessions, Submissions(db), Watch(db))

    def service(*_reports: Any) -> Any:
        return Links(db, new_id())  # the map does not ask it

    plane = build_control_plane(settings, db, Registry(), service)
    assert set(routes_of("gateway", gateway)) | set(routes_of("plane", plane)) == set(ROWS)


@pytest.fixture
async def world(db: Database, database: str) -> AsyncIterator[RouteWorld]:
    async with open_routes(db, database) as made:
        yield made


@dataclass(frozen=True)
class Asker:
    world: RouteWorld
    name: str
    row: Row

    async def ask(self, caller: str, over: dict[str, Any] | None = None) -> httpx.Response:
        request = {**await self.row.make(self.world), **(over or {})}
        service, method, path = self.name.split(" ")
        for name, value in request.pop("path", {}).items():
            path = path.replace(f"<{name}>", value)
        client = self.world.gateway if service == "gateway" else self.world.plane
        headers = {**self.world.callers[caller], **request.pop("headers", {})}
        return await client.request(method, path, headers=headers, **request)

    async def refused(self, status: int, word: str, caller: str, over: dict[str, Any] | None = None) -> None:
        answer = await self.ask(caller, over)
        assert answer.status_code == status, (self.name, caller, over, answer.text)
        problem = answer.json()
        assert answer.headers["content-type"] == "application/problem+json"
        assert {"type", "title", "status", "instance"} <= set(problem)
        assert (problem["status"], problem["instance"]) == (status, answer.headers["x-request-id"])
        assert answer.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)
        said = f"{problem.get('detail', '')} {problem['type']} {problem}"
        assert word in said, (self.name, said)


CLASSES = ("owner", "other", "admin", "node")
"""Those with a token of their own, besides nobody."""


def noun(name: str) -> str:
    """Rows of one noun share a test: starting both services costs more than asking them."""
    service, _, path = name.split(" ")
    return f"{service} {[*path.split('/'), 'health'][2]}"


NOUNS = sorted({noun(name) for name in ROWS})


def rows_of(wanted: str) -> list[str]:
    return [name for name in ROWS if noun(name) == wanted and "WEBSOCKET" not in name]


def expected(who: str, caller: str) -> int:
    """0 is success; else what a caller of this class is refused with."""
    if who == "node":
        return 0 if caller == "node" else 401
    if caller == "node":
        return 401
    if who == "admin":
        return 0 if caller == "admin" else 403
    if who == "owner":
        return 0 if caller == "owner" else 404
    return 0


@pytest.mark.parametrize("noun", NOUNS)
async def test_each_class_of_caller(world: RouteWorld, noun: str) -> None:
    for name in rows_of(noun):
        await ask_as_each_class(world, name)


async def ask_as_each_class(world: RouteWorld, name: str) -> None:
    row = ROWS[name]
    asker = Asker(world, name, row)
    if row.who == "anyone":
        for caller in ("nobody", "garbage", *CLASSES):
            assert (await asker.ask(caller)).status_code == row.status
        return
    await asker.refused(401, "Missing authorization header", "nobody")
    await asker.refused(401, "Invalid or expired token", "garbage")
    await asker.refused(401, "Invalid or expired token", "refresh token")
    for caller in CLASSES:
        refusal = expected(row.who, caller)
        if refusal:
            word = {401: "Invalid or expired token", 403: "Admin required", 404: row.unknown}[refusal]
            await asker.refused(refusal, word, caller)
        else:
            answer = await asker.ask(caller)
            assert answer.status_code == row.status, (name, caller, answer.text)


ABLE = {"anyone": "nobody", "user": "owner", "owner": "owner", "admin": "admin", "node": "node"}
DEEP = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
NO_JSON = (b"", b"{", b"[]", b'"text"', b"\xff\xfe", b'{"a": NaN}', DEEP)


@pytest.mark.parametrize("noun", NOUNS)
async def test_bad_input(world: RouteWorld, noun: str) -> None:
    for name in rows_of(noun):
        await ask_badly(world, name)


async def ask_badly(world: RouteWorld, name: str) -> None:
    row = ROWS[name]
    asker, caller = Asker(world, name, row), ABLE[row.who]
    for over, status, word in row.bad:
        await asker.refused(status, word, caller, over)
    if row.takes_body:
        for content in NO_JSON:
            await asker.refused(400, "", caller, {"json": None, "content": content})
        await asker.refused(413, "", caller, {"json": None, "content": b" " * (Limits().body_bytes + 1)})
        given = (await row.make(world))["json"]
        strange = await asker.ask(caller, {"json": {**given, "colour": "red"}})
        if row.ignores_fields:
            assert strange.status_code < 300, strange.text
        else:
            assert (strange.status_code, "colour" in strange.text) == (400, True), strange.text
        surrogate = await asker.ask(caller, {"json": None, "content": b'{"colour": "\\ud800"}'})
        assert surrogate.status_code == 400
    if row.unknown:
        [part] = (await row.make(world))["path"]
        for strange_name in (str(uuid4()), "no-such-name", "%00", "%ff", "a%2Fb", "x" * 5000):
            await asker.refused(404, "", caller, {"path": {part: strange_name}})


@pytest.mark.parametrize("service", ["gateway", "plane"])
async def test_what_is_no_route(world: RouteWorld, service: str) -> None:
    client = world.gateway if service == "gateway" else world.plane
    missing = await client.get("/v1/nothing", headers=world.callers["admin"])
    assert (missing.status_code, missing.json()["type"]) == (404, "urn:cynodeai:error:not_found")
    wrong = await client.delete("/healthz")
    assert (wrong.status_code, wrong.json()["type"]) == (405, "urn:cynodeai:error:method_not_allowed")
    assert (await client.get(f"{client.base_url}//healthz/")).text == "ok"
