"""The configuration that a node is given."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator.domain.times import rfc3339

VERSION = 1


@dataclass(frozen=True, slots=True)
class ConfigRules:
    """What of the server's settings the nodes are told."""

    public_url: str | None = None
    """None: nodes are told the address by which they came."""
    max_request_bytes: int = 10 << 20
    max_job_timeout_seconds: int = 10800


def make_config(
    rules: ConfigRules, slug: str, worker_api_url: str, base_url: str, version: str, at: datetime
) -> dict[str, Any]:
    return {
        "version": VERSION,
        "config_version": version,
        "issued_at": rfc3339(at),
        "node_slug": slug,
        "orchestrator": _orchestrator(worker_api_url, base_url),
        "model_cache": {"cache_url": ""},
        "constraints": {
            "max_request_bytes": rules.max_request_bytes,
            "max_job_timeout_seconds": rules.max_job_timeout_seconds,
        },
    }


def same_content(old: Mapping[str, Any], new: Mapping[str, Any], *, fixed_url: bool) -> bool:
    """Whether a new version is not needed. An address that only says how this request came is no content."""
    return _content(old, fixed_url) == _content(new, fixed_url)


def with_base_url(config: Mapping[str, Any], base_url: str) -> dict[str, Any]:
    target = config["orchestrator"]["endpoints"]["worker_api_target_url"]
    return {**config, "orchestrator": _orchestrator(target, base_url)}


def endpoints(base_url: str) -> dict[str, str]:
    """Where a node finds what, for its bootstrap."""
    return {
        "worker_registration_url": f"{base_url}/v1/nodes/register",
        "node_report_url": f"{base_url}/v1/nodes/capability",
        "node_config_url": f"{base_url}/v1/nodes/config",
        "node_link_url": f"{base_url.replace('http', 'ws', 1)}/v1/nodes/link",
    }


def _orchestrator(worker_api_url: str, base_url: str) -> dict[str, Any]:
    report = endpoints(base_url)["node_report_url"]
    return {"base_url": base_url, "endpoints": {"worker_api_target_url": worker_api_url, "node_report_url": report}}


def _content(config: Mapping[str, Any], fixed_url: bool) -> dict[str, Any]:
    content = {name: value for name, value in config.items() if name not in ("config_version", "issued_at")}
    return content if fixed_url else with_base_url(content, "")
