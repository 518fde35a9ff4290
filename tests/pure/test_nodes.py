from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from orchestrator.domain.capability import UNSUPPORTED, read_report
from orchestrator.domain.errors import Invalid, TooLarge
from orchestrator.domain.ids import NodeId
from orchestrator.domain.nodes import AckStatus, Node, NodeStatus

NOW = datetime(2030, 1, 1, tzinfo=UTC)
APPLIED = AckStatus.APPLIED
READY = Node(
    id=NodeId(UUID(int=1)),
    slug="n1",
    display_name=None,
    enabled=True,
    drain_requested_at=None,
    config_version="B",
    acked_config_version="B",
    ack_status=APPLIED,
    last_seen_at=NOW,
    agent_version="1",
    slots=2,
    capability={"sandbox": {"supported": True}},
    placement_labels=None,
    linked=True,
    leased=True,
    occupied=0,
)


@pytest.mark.parametrize(
    ("node", "status", "takes_work"),
    [
        pytest.param(READY, "active", True, id="ready"),
        pytest.param(replace(READY, occupied=2), "active", True, id="full"),
        pytest.param(replace(READY, slots=None), "active", True, id="slots unknown"),
        pytest.param(replace(READY, linked=False), "active", False, id="the link dropped, the lease runs"),
        pytest.param(replace(READY, linked=False, leased=False), "inactive", False, id="the lease ended"),
        pytest.param(replace(READY, acked_config_version="A"), "inactive", False, id="an old configuration"),
        pytest.param(replace(READY, ack_status=AckStatus.FAILED), "inactive", False, id="a failed configuration"),
        pytest.param(replace(READY, acked_config_version=None, ack_status=None), "registered", False, id="no ack yet"),
        pytest.param(
            replace(READY, last_seen_at=None, leased=False, linked=False), "registered", False, id="never seen"
        ),
        pytest.param(replace(READY, drain_requested_at=NOW), "drained", False, id="drained"),
        pytest.param(replace(READY, drain_requested_at=NOW, occupied=1), "draining", False, id="draining"),
        pytest.param(
            replace(READY, enabled=False, drain_requested_at=NOW), "disabled", False, id="disabled and drained"
        ),
        pytest.param(replace(READY, capability={"sandbox": {"supported": False}}), "active", False, id="no sandbox"),
        pytest.param(replace(READY, capability={}), "active", True, id="no word about a sandbox"),
    ],
)
def test_the_state_of_a_node_is_derived(node: Node, status: str, takes_work: bool) -> None:
    assert node.status is NodeStatus(status)
    assert node.takes_work is takes_work


def test_the_labels_of_the_join_token_stand_for_the_nodes_own() -> None:
    node = replace(READY, capability={"node": {"labels": {"gpu": "yes"}}})
    assert node.labels == {"gpu": "yes"}
    assert replace(node, placement_labels={"room": "1"}).labels == {"room": "1"}
    assert replace(node, placement_labels={}).labels == {}


REPORT = {
    "version": 1,
    "reported_at": "2030-01-01T00:00:00Z",
    "node": {"node_slug": "n1", "labels": {"a": "b"}},
    "platform": {"os": "linux", "arch": "x86_64"},
    "compute": {"cpu_cores": 2, "ram_mb": 1024, "storage_free_mb": 5},
    "runtimes": [{"name": "bubblewrap", "limits": True, "images": False}],
    "novelty": {"anything": [1]},
}


def test_a_report_is_kept_whole_and_hashed_without_what_always_changes() -> None:
    report = read_report(REPORT)
    assert report.raw == REPORT
    later = read_report({**REPORT, "reported_at": "later", "compute": {**REPORT["compute"], "storage_free_mb": 4}})  # type: ignore[dict-item]
    other = read_report({**REPORT, "platform": {"os": "plan9"}})
    assert report.hash == later.hash != other.hash


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"version": "1"}, "version"),
        ({"version": True}, "version"),
        ({"node": None}, "Node slug is required"),
        ({"node": {}}, "Node slug is required"),
        ({"node": {"node_slug": ""}}, "Node slug is required"),
        ({"node": {"node_slug": "N1"}}, "node_slug"),
        ({"node": {"node_slug": "-a"}}, "node_slug"),
        ({"node": {"node_slug": "a" * 64}}, "node_slug"),
        ({"node": {"node_slug": 7}}, "node_slug"),
        ({"node": []}, "capability.node"),
        ({"node": {"node_slug": "n1", "labels": {"a": 1}}}, "node.labels"),
        ({"node": {"node_slug": "n1", "labels": "gpu"}}, "node.labels"),
        ({"compute": {"ram_mb": "much"}}, "compute.ram_mb"),
        ({"compute": {"cpu_cores": True}}, "compute.cpu_cores"),
        ({"gpu": {"present": "yes"}}, "gpu.present"),
        ({"sandbox": "none"}, "sandbox"),
        ({"runtimes": {}}, "runtimes"),
        ({"runtimes": [{}]}, "runtimes.0.name"),
        ({"runtimes": [{"name": "podman", "limits": 1}]}, "runtimes.0.limits"),
        ({"worker_api": {"base_url": 1}}, "worker_api.base_url"),
    ],
)
def test_a_wrong_report_is_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(Invalid, match=named):
        read_report({**REPORT, **change})


def test_another_version_names_the_supported_ones() -> None:
    with pytest.raises(Invalid) as caught:
        read_report({**REPORT, "version": 2})
    assert caught.value.facts == {"kind": UNSUPPORTED, "supported_versions": [1]}


def test_a_huge_report_is_refused() -> None:
    with pytest.raises(TooLarge):
        read_report({**REPORT, "novelty": "x" * 300_000})
