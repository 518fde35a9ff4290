"""What a capability report says about the work that a node may be given. Pure, and forgiving about what is missing."""

from collections.abc import Mapping
from typing import Any

from orchestrator.domain.selection import NodeAbility, RuntimeOffer


def sandbox_allowed(report: Mapping[str, Any]) -> bool:
    """A node whose report says that it supports no sandbox gets no jobs."""
    sandbox = report.get("sandbox")
    if not isinstance(sandbox, Mapping):
        return True
    return sandbox.get("supported") is not False and sandbox.get("mode") != "disabled"


def ability_of(
    report: Mapping[str, Any], placement_labels: Mapping[str, str] | None, refused: frozenset[int]
) -> NodeAbility:
    """Labels are those that its join token named, if it named any, else those that the node reports."""
    node = _object(report.get("node"))
    labels = placement_labels if placement_labels is not None else _labels(node.get("labels"))
    gpu = _object(report.get("gpu")).get("present") is True
    return NodeAbility(labels, gpu, _runtimes(report.get("runtimes")), refused)


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _labels(value: object) -> Mapping[str, str]:
    """Objects as they are; a list of words means labels of the value "true"."""
    if isinstance(value, Mapping):
        return {str(name): str(text) for name, text in value.items()}
    if isinstance(value, list):
        return {str(name): "true" for name in value}
    return {}


def _runtimes(value: object) -> tuple[RuntimeOffer, ...] | None:
    if not isinstance(value, list):
        return None
    offers = [_object(entry) for entry in value]
    return tuple(
        RuntimeOffer(
            str(offer["name"]),
            offer.get("limits") is True,
            offer.get("images") is True,
            offer.get("default_image") if isinstance(offer.get("default_image"), str) else None,
        )
        for offer in offers
        if isinstance(offer.get("name"), str)
    )
