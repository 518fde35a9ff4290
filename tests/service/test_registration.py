"""Registration, node tokens, configuration and reports, over a real port."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
import trio

from identity import gateway, log_in, make_identity
from nodes_parts import (
    PSK,
    Plane,
    acknowledge,
    control_plane,
    make_plane,
    new_key,
    node_headers,
    register,
    report,
    sql,
)
from orchestrator.app.clock import now
from orchestrator.app.join_tokens import NewJoinToken
from orchestrator.app.node_configs import next_version
from orchestrator.domain.ids import SYSTEM_USER
from orchestrator.domain.node_config import ConfigRules
from orchestrator.store.db import Database


@pytest.fixture
async def plane(db: Database) -> Plane:
    return make_plane(db)


async def join(plane: Plane, **wanted: Any) -> str:
    return (await plane.join_tokens.create(NewJoinToken(**wanted), SYSTEM_USER))[1]


async def config_version(client: httpx.AsyncClient, node: dict[str, str]) -> str:
    answer = await client.get("/v1/nodes/config", headers=node)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["config_version"])


async def test_a_node_registers_and_gets_its_bootstrap(plane: Plane) -> None:
    key = new_key()
    async with control_plane(plane) as client:
        first = await register(client, node_key=key)
        again = await register(client, node_key=key)
    base = str(client.base_url).rstrip("/")
    assert (first.status_code, again.status_code) == (201, 200)
    body = first.json()
    assert body["version"] == 1
    assert body["orchestrator"] == {
        "base_url": base,
        "endpoints": {
            "worker_registration_url": f"{base}/v1/nodes/register",
            "node_report_url": f"{base}/v1/nodes/capability",
            "node_config_url": f"{base}/v1/nodes/config",
            "node_link_url": f"{base.replace('http', 'ws')}/v1/nodes/link",
        },
    }
    assert set(body["auth"]) == {"node_jwt", "expires_at"}
    assert PSK not in first.text
    claims = plane.tokens.read_node(again.json()["auth"]["node_jwt"])
    assert claims.slug == "n1"
    stored = await sql(plane.db, "SELECT nodes::text FROM nodes")
    assert key not in str(stored)


async def test_the_public_url_is_told_where_one_is_set(db: Database) -> None:
    plane = make_plane(db, ConfigRules(public_url="https://cynode.example.org"))
    async with control_plane(plane) as client:
        answer = await register(client)
        config = await client.get("/v1/nodes/config", headers=node_headers(answer))
    endpoints = answer.json()["orchestrator"]["endpoints"]
    assert endpoints["node_link_url"] == "wss://cynode.example.org/v1/nodes/link"
    assert config.json()["orchestrator"]["base_url"] == "https://cynode.example.org"


BAD_REGISTRATIONS: list[tuple[dict[str, Any], int, str]] = [
    ({"capability": report()}, 401, "Invalid registration PSK"),
    ({"psk": "wrong", "capability": report()}, 401, "Invalid registration PSK"),
    ({"psk": "", "capability": report()}, 401, "Invalid registration PSK"),
    ({"psk": PSK + "x", "capability": report()}, 401, "Invalid registration PSK"),
    ({"join_token": "cnj_unknown", "capability": report()}, 401, "Invalid registration PSK"),
    ({"psk": "wrong"}, 401, "Invalid registration PSK"),
    ({"psk": 7, "capability": report()}, 400, "psk"),
    ({"psk": PSK}, 400, "version"),
    ({"psk": PSK, "capability": []}, 400, "capability"),
    ({"psk": PSK, "capability": {"version": 1}}, 400, "Node slug is required"),
    ({"psk": PSK, "capability": report("")}, 400, "Node slug is required"),
    ({"psk": PSK, "capability": report("UPPER")}, 400, "node_slug"),
    ({"psk": PSK, "capability": report("a/b")}, 400, "node_slug"),
    ({"psk": PSK, "capability": report("x" * 64)}, 400, "node_slug"),
    ({"psk": PSK, "capability": report(compute=[])}, 400, "capability.compute"),
    ({"psk": PSK, "capability": report(novelty="a\u0000b")}, 400, "NUL"),
    ({"psk": PSK, "capability": report(novelty="x" * 300_000)}, 413, "capability"),
    ({"psk": PSK, "capability": report(), "node_key": "short"}, 400, "node_key"),
    ({"psk": PSK, "capability": report(), "node_key": 7}, 400, "node_key"),
]


async def test_a_bad_registration_is_named_and_stores_nothing(plane: Plane) -> None:
    async with control_plane(plane) as client:
        for body, status, named in BAD_REGISTRATIONS:
            answer = await client.post("/v1/nodes/register", json=body)
            assert (answer.status_code, named in answer.json()["detail"]) == (status, True), (body, answer.text)
        for raw in (b"", b"{", b"null", b'{"psk": "\\ud800"}'):
            assert (await client.post("/v1/nodes/register", content=raw)).status_code == 400
        host = await client.post(
            "/v1/nodes/register", json={"psk": PSK, "capability": report()}, headers={"Host": "a b"}
        )
        assert host.status_code == 400
    assert await sql(plane.db, "SELECT count(*) FROM nodes") == [(0,)]


async def test_another_payload_version_names_the_supported_ones(plane: Plane) -> None:
    async with control_plane(plane) as client:
        registered = await register(client)
        node = node_headers(registered)
        answers = [
            await register(client, capability=report() | {"version": 2}),
            await client.post("/v1/nodes/capability", headers=node, json=report() | {"version": "1"}),
            await client.post(
                "/v1/nodes/config",
                headers=node,
                json={"version": 3, "node_slug": "n1", "config_version": "x", "status": "applied"},
            ),
        ]
    for answer in answers:
        assert answer.status_code == 400
        assert answer.json()["type"] == "https://cynode.ai/problems/unsupported-payload-version"
        assert answer.json()["supported_versions"] == [1]


async def test_a_slug_cannot_be_taken_over_with_the_shared_key(plane: Plane) -> None:
    async with control_plane(plane) as client:
        node = node_headers(await register(client, node_key=new_key()))
        for body in ({"node_key": new_key()}, {}):
            refused = await register(client, **body)
            assert refused.status_code == 409
            assert "n1 is registered already" in refused.json()["detail"]
        assert (await client.get("/v1/nodes/config", headers=node)).status_code == 200


async def test_the_shared_key_is_trusted_where_so_set(db: Database) -> None:
    plane = make_plane(db, trust_psk=True)
    async with control_plane(plane) as client:
        assert [(await register(client)).status_code for _ in range(2)] == [201, 200]
        assert (await register(client, node_key=new_key())).status_code == 409


async def test_of_many_who_register_one_slug_at_once_one_gets_it(plane: Plane) -> None:
    codes: list[int] = []
    async with control_plane(plane) as client:

        async def one() -> None:
            codes.append((await register(client, node_key=new_key())).status_code)

        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(one)
    assert sorted(codes) == [201] + [409] * 11
    assert await sql(plane.db, "SELECT count(*) FROM nodes") == [(1,)]
    assert await sql(plane.db, "SELECT count(*) FROM node_configs") == [(1,)]


async def test_one_agent_that_registers_twice_at_once_is_taken_twice(plane: Plane) -> None:
    key, codes = new_key(), list[int]()
    async with control_plane(plane) as client:

        async def one() -> None:
            codes.append((await register(client, node_key=key)).status_code)

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(one)
    assert sorted(codes) == [200] * 3 + [201]


async def test_a_join_token_admits_so_many_nodes_and_names_their_labels(plane: Plane) -> None:
    token = await join(plane, labels={"zone": "a"}, uses=2)
    keys = {slug: new_key() for slug in ("n1", "n2", "n3")}
    async with control_plane(plane) as client:
        codes = [
            (await register(client, slug, join_token=token, node_key=key)).status_code for slug, key in keys.items()
        ]
        again = await register(client, "n1", join_token=token, node_key=keys["n1"])
    assert codes == [201, 201, 401]
    assert again.status_code == 200  # an agent that starts again has its key
    assert (await plane.nodes.get("n1")).labels == {"zone": "a"}


async def test_uses_of_a_join_token_are_counted_at_once(plane: Plane) -> None:
    token, codes = await join(plane, uses=3), list[int]()
    async with control_plane(plane) as client:

        async def one(nth: int) -> None:
            answer = await register(client, f"n{nth}", join_token=token, node_key=new_key())
            codes.append(answer.status_code)

        async with trio.open_nursery() as nursery:
            for nth in range(8):
                nursery.start_soon(one, nth)
    assert sorted(codes) == [201] * 3 + [401] * 5


async def test_a_join_token_for_a_slug_admits_that_slug_and_may_take_it_over(plane: Plane) -> None:
    token, expired = await join(plane, slug="n1", uses=5), await join(plane, slug="n2")
    await sql(plane.db, "UPDATE join_tokens SET expires_at = now() WHERE slug = 'n2'")
    async with control_plane(plane) as client:
        assert (await register(client, "n2", join_token=token)).status_code == 401
        assert (await register(client, "n2", join_token=expired)).status_code == 401
        old_key, key = new_key(), new_key()
        old = node_headers(await register(client, node_key=old_key))
        new = node_headers(await register(client, join_token=token, node_key=key))
        assert (await client.get("/v1/nodes/config", headers=new)).status_code == 200
        refused = await client.get("/v1/nodes/config", headers=old)
        assert (refused.status_code, refused.json()["detail"]) == (401, "Invalid or expired token")
        assert (await client.post("/v1/nodes/token", json={"node_slug": "n1", "node_key": old_key})).status_code == 401
        renewed = await client.post("/v1/nodes/token", json={"node_slug": "n1", "node_key": key})
        assert (await client.get("/v1/nodes/config", headers=node_headers(renewed))).status_code == 200


async def test_a_slug_without_a_key_takes_its_first_one_only_with_a_join_token(plane: Plane) -> None:
    async with control_plane(plane) as client:
        assert (await register(client)).status_code == 201
        key = new_key()
        assert (await register(client, node_key=key)).status_code == 409
        assert (await register(client, node_key=key, join_token=await join(plane, slug="n1"))).status_code == 200
        assert (await register(client, node_key=key)).status_code == 200


async def test_a_new_node_token_needs_the_key(plane: Plane) -> None:
    key = new_key()
    bodies: list[tuple[Any, int]] = [
        ({"node_slug": "n1", "node_key": key}, 200),
        ({"node_slug": "n1", "node_key": key + "="}, 200),
        ({"node_slug": "n1", "node_key": new_key()}, 401),
        ({"node_slug": "n9", "node_key": key}, 401),
        ({"node_slug": "keyless", "node_key": key}, 401),
        ({"node_slug": "n1", "node_key": "x"}, 400),
        ({"node_slug": "", "node_key": key}, 400),
        ({"node_slug": "n1"}, 400),
        ([], 400),
    ]
    async with control_plane(plane) as client:
        await register(client, node_key=key)
        await register(client, "keyless")
        for body, status in bodies:
            assert (await client.post("/v1/nodes/token", json=body)).status_code == status, body
        await plane.nodes.disable("n1")
        refused = await client.post("/v1/nodes/token", json={"node_slug": "n1", "node_key": key})
    assert (refused.status_code, refused.json()["type"]) == (403, "urn:cynodeai:error:authorization")


async def test_a_disabled_node_is_refused_and_its_old_tokens_stay_refused(plane: Plane) -> None:
    key = new_key()
    async with control_plane(plane) as client:
        node = node_headers(await register(client, node_key=key))
        await plane.nodes.disable("n1")
        assert (await client.get("/v1/nodes/config", headers=node)).status_code == 403
        assert (await client.post("/v1/nodes/capability", headers=node, json=report())).status_code == 403
        assert (await register(client, node_key=key)).status_code == 403
        await plane.nodes.enable("n1")
        assert (await client.get("/v1/nodes/config", headers=node)).status_code == 401
        renewed = await client.post("/v1/nodes/token", json={"node_slug": "n1", "node_key": key})
        assert (await client.get("/v1/nodes/config", headers=node_headers(renewed))).status_code == 200


async def test_registering_again_does_not_undo_a_drain(plane: Plane) -> None:
    key = new_key()
    async with control_plane(plane) as client:
        await register(client, node_key=key)
        await plane.nodes.drain("n1")
        assert (await register(client, node_key=key)).status_code == 200
    assert (await plane.nodes.get("n1")).drain_requested_at is not None


async def test_the_configuration_holds_what_the_contract_says(plane: Plane) -> None:
    async with control_plane(plane) as client:
        worker = {"base_url": "http://worker:9190"}
        answer = await register(client, capability=report(worker_api=worker))
        config = (await client.get("/v1/nodes/config", headers=node_headers(answer))).json()
    assert len(config["config_version"]) == 26
    assert config["orchestrator"]["endpoints"]["worker_api_target_url"] == "http://worker:9190"
    assert config["model_cache"] == {"cache_url": ""}
    assert config["constraints"] == {"max_request_bytes": 10 << 20, "max_job_timeout_seconds": 10800}
    assert (config["version"], config["node_slug"]) == (1, "n1")
    assert PSK not in str(config)


async def test_the_version_rises_with_each_change_and_only_then(db: Database) -> None:
    key, versions = new_key(), []
    async with control_plane(make_plane(db)) as client:
        node = node_headers(await register(client, node_key=key))
        versions.append(await config_version(client, node))
        await register(client, node_key=key)
        assert (await acknowledge(client, node, versions[0])).status_code == 204
        assert await config_version(client, node) == versions[0]
        changed = report(worker_api={"base_url": "http://elsewhere:1"})
        assert (await client.post("/v1/nodes/capability", headers=node, json=changed)).status_code == 204
        versions.append(await config_version(client, node))
    async with control_plane(make_plane(db, ConfigRules(max_job_timeout_seconds=60))) as client:
        versions.append(await config_version(client, node))
        assert await config_version(client, node) == versions[2]
        config = (await client.get("/v1/nodes/config", headers=node | {"Host": "other.example:8080"})).json()
    assert versions == sorted(set(versions))
    assert config["config_version"] == versions[2]
    assert config["orchestrator"]["base_url"] == "http://other.example:8080"


def test_a_version_rises_also_when_the_clock_was_set_back() -> None:
    future = "7ZZZZZZZZZZZZZZZZZZZZZZZZ0"
    assert next_version(future) > future
    assert len(next_version(None)) == 26


async def test_only_an_ack_of_the_current_version_counts(plane: Plane) -> None:
    async with control_plane(plane) as client:
        node = node_headers(await register(client))
        old = await config_version(client, node)
        await client.post("/v1/nodes/capability", headers=node, json=report(worker_api={"base_url": "http://x:1"}))
        current = await config_version(client, node)
        assert (await acknowledge(client, node, old)).status_code == 204
        assert not (await plane.nodes.get("n1")).config_applied
        assert (await acknowledge(client, node, current, "failed")).status_code == 204
        assert not (await plane.nodes.get("n1")).config_applied
        assert (await acknowledge(client, node, current)).status_code == 204
        assert (await plane.nodes.get("n1")).config_applied
        assert (await acknowledge(client, node, old, "failed")).status_code == 204
        assert (await plane.nodes.get("n1")).config_applied
    rows = await sql(plane.db, "SELECT status FROM node_configs ORDER BY config_version")
    assert rows == [("failed",), ("applied",)]


async def test_bad_acks(plane: Plane) -> None:
    async with control_plane(plane) as client:
        node = node_headers(await register(client))
        await register(client, "n2")
        version = await config_version(client, node)
        other = await acknowledge(client, node, version, slug="n2")
        assert (other.status_code, other.json()["detail"]) == (400, "node_slug does not match authenticated node")
        assert (await acknowledge(client, node, "0" * 26)).status_code == 400
        assert (await acknowledge(client, node, "x" * 100)).status_code == 400
        assert (await acknowledge(client, node, version, "done")).status_code == 400
        assert (await client.post("/v1/nodes/config", headers=node, json={"version": 1})).status_code == 400
        missing = {"version": 1, "config_version": version, "status": "applied"}
        assert "Node slug" in (await client.post("/v1/nodes/config", headers=node, json=missing)).json()["detail"]


async def test_a_report_is_stored_whole_and_forgives_refusals_only_when_it_changed(plane: Plane) -> None:
    async def refuse() -> None:
        await sql(plane.db, "INSERT INTO requirements (body) VALUES ('{}') ON CONFLICT DO NOTHING")
        await sql(
            plane.db,
            """INSERT INTO node_refusals (node_id, requirement_id, reason)
               SELECT n.id, r.id, 'unsupported' FROM nodes n, requirements r""",
        )

    async def refusals() -> int:
        return int((await sql(plane.db, "SELECT count(*) FROM node_refusals"))[0][0])

    async with control_plane(plane) as client:
        node = node_headers(await register(client))
        await refuse()
        later = report(reported_at="2031-01-01T00:00:00Z")
        assert (await client.post("/v1/nodes/capability", headers=node, json=later)).status_code == 204
        assert await refusals() == 1
        grown = report(novelty={"deep": [1, {"x": None}]})
        assert (await client.post("/v1/nodes/capability", headers=node, json=grown)).status_code == 204
        assert await refusals() == 0
        wrong = await client.post("/v1/nodes/capability", headers=node, json=report("n2"))
        assert (wrong.status_code, wrong.json()["detail"]) == (400, "node_slug does not match authenticated node")
    assert (await plane.nodes.get("n1")).capability == grown


async def test_only_a_nodes_own_kind_of_token_opens_its_routes(plane: Plane, db: Database) -> None:
    identity = make_identity(db)
    await identity.make_user("ann")
    async with gateway(identity) as users, control_plane(plane) as client:
        person = await log_in(users, "ann")
        node_id = (await register(client)).json()["auth"]["node_jwt"]
        old = plane.tokens.node(plane.tokens.read_node(node_id).node_id, "n1", now() - timedelta(days=2)).text
        renamed = plane.tokens.node(plane.tokens.read_node(node_id).node_id, "n2", now()).text
        unknown = plane.tokens.node(UUID(int=7), "n1", now()).text  # type: ignore[arg-type]
        for method, path in (("GET", "config"), ("POST", "config"), ("POST", "capability")):
            bad = [person["access_token"], person["refresh_token"], old, renamed, unknown, "x"]
            for token in bad:
                headers = {"Authorization": f"Bearer {token}"}
                answer = await client.request(method, f"/v1/nodes/{path}", headers=headers)
                assert (answer.status_code, answer.json()["detail"]) == (401, "Invalid or expired token")
            nobody = await client.request(method, f"/v1/nodes/{path}")
            assert (nobody.status_code, nobody.json()["detail"]) == (401, "Missing authorization header")
        refused = await users.get("/v1/users/me", headers={"Authorization": f"Bearer {node_id}"})
        assert refused.status_code == 401
