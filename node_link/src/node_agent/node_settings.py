"""The configuration that the orchestrator gives this node: read, applied whole or not at all."""

from dataclasses import dataclass
from math import inf
from typing import Any


class BadNodeConfig(Exception):
    """It cannot be applied; the text goes back to the orchestrator."""


@dataclass(frozen=True)
class NodeSettings:
    config_version: str
    max_timeout_seconds: float = inf


def read_node_config(config: dict[str, Any], slug: str) -> NodeSettings:
    """Raises BadNodeConfig."""
    version = config.get("config_version")
    if not isinstance(version, str) or not version:
        raise BadNodeConfig("config_version is missing")
    if config.get("version", 1) != 1:
        raise BadNodeConfig(f"version {config['version']!r} is not known to this agent; it knows 1")
    if config.get("node_slug", slug) != slug:
        raise BadNodeConfig(f"it is for node {config['node_slug']!r}, and this is {slug}")
    constraints = config.get("constraints") or {}
    most = constraints.get("max_job_timeout_seconds") if isinstance(constraints, dict) else "?"
    if most is None:
        return NodeSettings(version)
    if isinstance(most, bool) or not isinstance(most, int | float) or not most > 0:
        raise BadNodeConfig("constraints.max_job_timeout_seconds is no positive number")
    return NodeSettings(version, float(most))
