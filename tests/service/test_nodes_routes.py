"""What people see of the nodes and decide about them, over a real port."""

from typing import Any

import httpx
import pytest

from identity import Identity, gateway, log_in_as, make_identity
from nodes_parts import Plane, add_attempt, make_linked, make_plane, new_key, report, sql
from orchestrator.app.registration import Application
from orchestrator.domain.users import Role
from orchestrator.store.db import Database
from orchestrator.user_gateway.node_tokens import node_token_routes
from orchestrator.user_gateway.nodes import node_routes

PUBLIC = {
    "node_id",
    "slug",
    "status",
    "enabled",
    "link",
    "last_heartbeat",
    "slots",
    "free_slots",
    "agent_version",
    "capability_summary",
}


@pytest.fixture
async def plane(db: Database) -> Plane:
    return make_plane(db)


@pytest.fixture
async def identity(db: Database) -> Identity:
    made = make_identity(db)
    await made.make_user("root", Role.ADMIN)
    await made.make_user("ann")
    return made


def opened(identity: Identity, plane: Plane) -> Any:
    return gateway(
        identity, node_routes(plane.nodes, identity.gate), node_token_routes(plane.join_tokens, identity.gate)
    )


async def join(plane: Plane, *slugs: str) -> None:
    for slug in slugs:
        capability = report(slug, worker_api={"base_url": "http://10.1.2.3:9190"})
        wanted = Application(capability, psk="a shared key of tests, long enough to be one", node_key=new_key())
        await plane.registration.register(wanted, "http://cp")


async def get(client: httpx.AsyncClient, who: dict[str, str], path: str = "/v1/nodes/n1") -> dict[str, Any]:
    answer = await client.get(path, headers=who)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_everybody_sees_the_nodes_and_admins_what_names_the_machine(identity: Identity, plane: Plane) -> None:
    await join(plane, "n1")
    async with opened(identity, plane) as client:
        ann, root = await log_in_as(client, "ann"), await log_in_as(client, "root")
        seen, whole = await get(client, ann), await get(client, root)
        assert set(seen) == PUBLIC
        assert set(whole) == PUBLIC | {"name", "address", "labels", "capability"}
        assert (seen["status"], seen["link"], seen["last_heartbeat"]) == ("registered", "down", None)
        assert (seen["slots"], seen["free_slots"], seen["agent_version"]) == (None, None, None)
        assert seen["capability_summary"]["runtimes"] == ["bubblewrap"]
        assert (whole["address"], whole["labels"]) == ("http://10.1.2.3:9190", {"room": "1"})
        assert whole["capability"]["platform"] == {"os": "linux", "arch": "x86_64"}
        assert (await get(client, ann, "/v1/nodes"))["nodes"] == [seen]
        assert (await client.get("/v1/nodes")).status_code == 401


async def test_the_life_of_a_node(identity: Identity, plane: Plane, db: Database) -> None:
    await join(plane, "n1")
    await make_linked(db, "n1", slots=3)
    async with opened(identity, plane) as client:
        root = await log_in_as(client, "root")
        seen = await get(client, root)
        assert (seen["status"], seen["link"], seen["free_slots"]) == ("active", "up", 3)
        assert seen["last_heartbeat"].endswith("Z")
        await add_attempt(db, "n1", (await sql(db, "SELECT id FROM users WHERE handle = 'ann'"))[0][0])
        assert (await get(client, root))["free_slots"] == 2

        drained = await client.post("/v1/nodes/n1/drain", headers=root)
        assert (drained.status_code, drained.json()["status"]) == (200, "draining")
        since = await sql(db, "SELECT drain_requested_at FROM nodes")
        await client.post("/v1/nodes/n1/drain", headers=root)
        assert await sql(db, "SELECT drain_requested_at FROM nodes") == since
        ended = "UPDATE job_attempts SET ended_at = now(), outcome = 'lost', stopped_at = $1::text::timestamptz"
        await sql(db, ended, None)
        assert (await get(client, root))["status"] == "draining"  # something may still run
        await sql(db, ended, "2030-01-01")
        assert (await get(client, root))["status"] == "drained"

        enabled = await client.post("/v1/nodes/n1/enable", headers=root)
        assert (enabled.json()["status"], enabled.json()["enabled"]) == ("active", True)
        disabled = await client.post("/v1/nodes/n1/disable", headers=root)
        assert (disabled.json()["status"], disabled.json()["enabled"]) == ("disabled", False)
        assert (await client.post("/v1/nodes/n1/drain", headers=root)).json()["status"] == "disabled"
        assert (await client.post("/v1/nodes/n1/enable", headers=root)).json()["status"] == "active"
        await sql(db, "UPDATE node_links SET link_id = NULL")
        seen = await get(client, root)
        assert (seen["status"], seen["link"]) == ("active", "down")
        await sql(db, "UPDATE node_links SET lease = 'expired'")
        assert (await get(client, root))["status"] == "inactive"


async def test_only_admins_decide(identity: Identity, plane: Plane) -> None:
    await join(plane, "n1")
    async with opened(identity, plane) as client:
        ann, root = await log_in_as(client, "ann"), await log_in_as(client, "root")
        for verb in ("drain", "enable", "disable"):
            assert (await client.post(f"/v1/nodes/n1/{verb}", headers=ann)).status_code == 403
            assert (await client.post(f"/v1/nodes/n1/{verb}")).status_code == 401
            for unknown in ("n2", "N1", "a%00b", "x" * 300):
                answer = await client.post(f"/v1/nodes/{unknown}/{verb}", headers=root)
                assert (answer.status_code, answer.json()["detail"]) == (404, "Node not found")
        assert (await client.get("/v1/nodes/a%00b", headers=ann)).status_code == 404
        assert (await get(client, ann))["enabled"] is True


async def test_the_list_is_paged_by_slug(identity: Identity, plane: Plane) -> None:
    slugs = ["a", "a-b", "a.b", "a1", "b"]
    await join(plane, *reversed(slugs))
    async with opened(identity, plane) as client:
        ann = await log_in_as(client, "ann")
        found, query = [], {"limit": "2"}
        while True:
            page = (await client.get("/v1/nodes", headers=ann, params=query)).json()
            found.append([node["slug"] for node in page["nodes"]])
            if "next_cursor" not in page:
                break
            query["cursor"] = page["next_cursor"]
        assert [len(each) for each in found] == [2, 2, 1]
        assert sorted(slug for each in found for slug in each) == slugs
        for bad in ({"limit": "0"}, {"limit": "201"}, {"limit": "1.5"}, {"cursor": "%%%"}):
            answer = await client.get("/v1/nodes", headers=ann, params=bad)
            assert (answer.status_code, answer.json()["detail"]) == (400, "Invalid limit or cursor")


async def test_readiness_says_what_is_missing(plane: Plane, db: Database) -> None:
    assert "no node has registered" in (await plane.nodes.why_not_dispatchable() or "")
    await join(plane, "n1")
    assert "no node is linked" in (await plane.nodes.why_not_dispatchable() or "")
    await make_linked(db, "n1")
    assert await plane.nodes.why_not_dispatchable() is None
    await plane.nodes.drain("n1")
    assert await plane.nodes.why_not_dispatchable() is not None
    await plane.nodes.enable("n1")
    await sql(db, """UPDATE nodes SET capability = '{"sandbox": {"supported": false}}'""")
    assert await plane.nodes.why_not_dispatchable() is not None


async def test_join_tokens_are_shown_once(identity: Identity, plane: Plane, db: Database) -> None:
    async with opened(identity, plane) as client:
        root = await log_in_as(client, "root")
        made = await client.post("/v1/node-tokens", headers=root, json={"slug": "n1", "labels": {"zone": "a"}})
        assert made.status_code == 201
        assert set(made.json()) == {"id", "token", "expires_at"}
        plain = await client.post("/v1/node-tokens", headers=root)
        assert plain.status_code == 201
        listed = (await client.get("/v1/node-tokens", headers=root)).json()["tokens"]
        one = await get(client, root, f"/v1/node-tokens/{made.json()['id']}")
        assert (one["slug"], one["labels"], one["uses_left"]) == ("n1", {"zone": "a"}, 1)
        assert [token["id"] for token in listed] == [made.json()["id"], plain.json()["id"]]
        assert made.json()["token"] not in str(listed)
        assert made.json()["token"] not in str(await sql(db, "SELECT join_tokens::text FROM join_tokens"))
        path = f"/v1/node-tokens/{plain.json()['id']}"
        assert (await client.delete(path, headers=root)).status_code == 204
        assert (await client.delete(path, headers=root)).status_code == 404
        assert (await client.get("/v1/node-tokens/nonsense", headers=root)).status_code == 404


async def test_bad_join_tokens_and_callers(identity: Identity, plane: Plane) -> None:
    bad: list[dict[str, Any]] = [
        {"slug": "UPPER"},
        {"slug": 7},
        {"labels": {"a": 1}},
        {"labels": ["a"]},
        {"labels": {f"l{nth}": "" for nth in range(33)}},
        {"expires_in": 0},
        {"expires_in": 10**9},
        {"expires_in": "1h"},
        {"uses": 0},
        {"uses": True},
        {"node": "n1"},
    ]
    async with opened(identity, plane) as client:
        root, ann = await log_in_as(client, "root"), await log_in_as(client, "ann")
        for body in bad:
            answer = await client.post("/v1/node-tokens", headers=root, json=body)
            assert (answer.status_code, next(iter(body)) in answer.json()["detail"]) == (400, True), answer.text
        for method, path in (("POST", ""), ("GET", ""), ("GET", "/x"), ("DELETE", "/x")):
            assert (await client.request(method, f"/v1/node-tokens{path}", headers=ann)).status_code == 403
            assert (await client.request(method, f"/v1/node-tokens{path}")).status_code == 401
