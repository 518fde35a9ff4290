"""The node's settings, from the environment and one file; the only file of the agent that reads the environment.

A file may hold the same names in lower case, and a table `limits` with what this machine refuses beyond what the
orchestrator asks. The environment wins over the file.
"""

import os
import re
import socket
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from node_agent.sandbox.spec import RuntimeName
from node_agent.settings import (
    BadSetting,
    read_flag,
    read_labels,
    read_number,
    read_runtimes,
    read_secret,
    read_slug,
    read_urls,
    seconds,
)

MOST_SLOTS = 1000
MOST_HELD = 4000
"""slots + prefetch: what a node holds must fit one frame of `hello`."""
MAX_TIMEOUT_SECONDS = 10800.0


@dataclass(frozen=True)
class LocalLimits:
    """What this machine allows at most, whatever the orchestrator says; a job beyond it is refused with the reason."""

    images: tuple[str, ...] | None = None
    """Patterns of images (`docker.io/library/*`); None is any."""
    network: bool = True
    """Whether jobs may ask for `restricted`."""
    memory_mb: int | None = None
    cpus: float | None = None
    pids: int | None = None
    max_timeout_seconds: float = MAX_TIMEOUT_SECONDS


@dataclass(frozen=True)
class NodeConfig:
    orchestrator_urls: tuple[str, ...]
    slug: str
    name: str
    labels: Mapping[str, str]
    state_dir: Path
    slots: int
    prefetch: int = 0
    runtimes: frozenset[RuntimeName] | None = None
    """NODE_RUNTIME: the only runtimes to offer; None is all that work."""
    default_image: str | None = None
    psk: str | None = field(default=None, repr=False)
    join_token: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    allow_plaintext: bool = False
    allow_process: bool = False
    process_is_fallback: bool = False
    """NODE_ALLOW_PROCESS=fallback: plain processes only where nothing better runs a job without an image."""
    allow_noop: bool = False
    podman_args: tuple[str, ...] = ()
    podman_run_args: tuple[str, ...] = ()
    spool_limit_bytes: int | None = None
    tool_env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What podman and docker see of this agent's environment; nothing of ours is among it."""
    limits: LocalLimits = LocalLimits()


def load(environment: Mapping[str, str] | None = None, file: Path | None = None) -> NodeConfig:
    """Raises BadSetting. Without arguments: this process's environment, and the file that NODE_CONFIG_FILE names."""
    env = dict(os.environ if environment is None else environment)
    file = file or (Path(env["NODE_CONFIG_FILE"]) if env.get("NODE_CONFIG_FILE") else None)
    from_file = _read_file(file) if file else {}
    limits = from_file.pop("limits", {})
    known = {name.lower() for name in _NAMES}
    if unknown := sorted(set(from_file) - known):
        raise BadSetting(f"{file}: unknown setting {unknown[0]!r}; known are {', '.join(sorted(known))} and limits")
    merged = {name: env.get(name) or _as_text(from_file.get(name.lower())) for name in _NAMES}
    return _build({name: value for name, value in merged.items() if value}, env, _local_limits(limits))


TOOL_NAMES = ("HOME", "PATH", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "DOCKER_HOST", "CONTAINERS_CONF")
_NAMES = (
    "ORCHESTRATOR_URL",
    "NODE_SLUG",
    "NODE_NAME",
    "NODE_LABELS",
    "NODE_STATE_DIR",
    "NODE_SLOTS",
    "NODE_PREFETCH",
    "NODE_RUNTIME",
    "NODE_DEFAULT_IMAGE",
    "NODE_PSK_FILE",
    "NODE_REGISTRATION_PSK",
    "NODE_JOIN_TOKEN_FILE",
    "NODE_CA_FILE",
    "NODE_ALLOW_PLAINTEXT",
    "NODE_ALLOW_PROCESS",
    "NODE_ALLOW_NOOP",
    "NODE_PODMAN_ARGS",
    "NODE_PODMAN_RUN_ARGS",
    "NODE_SPOOL_LIMIT_MB",
)


def _build(given: Mapping[str, str], env: Mapping[str, str], limits: LocalLimits) -> NodeConfig:
    host = socket.gethostname().split(".")[0]
    slots = read_number(given, "NODE_SLOTS", os.cpu_count() or 1, 1, MOST_SLOTS)
    fallback = given.get("NODE_ALLOW_PROCESS", "").lower() == "fallback"
    return NodeConfig(
        orchestrator_urls=read_urls(given.get("ORCHESTRATOR_URL", "http://localhost:12082")),
        slug=read_slug(given.get("NODE_SLUG") or re.sub(r"[^a-z0-9._-]+", "-", host.lower()).strip("-._") or "node"),
        name=given.get("NODE_NAME", host),
        labels=read_labels(given.get("NODE_LABELS", "")),
        state_dir=Path(given.get("NODE_STATE_DIR") or _default_state_dir(env)).expanduser().absolute(),
        slots=slots,
        prefetch=read_number(given, "NODE_PREFETCH", 0, 0, MOST_HELD - slots),
        runtimes=read_runtimes("NODE_RUNTIME", given.get("NODE_RUNTIME")),
        default_image=given.get("NODE_DEFAULT_IMAGE"),
        psk=read_secret(given, "NODE_PSK_FILE") or given.get("NODE_REGISTRATION_PSK"),
        join_token=read_secret(given, "NODE_JOIN_TOKEN_FILE"),
        ca_file=Path(given["NODE_CA_FILE"]) if "NODE_CA_FILE" in given else None,
        allow_plaintext=read_flag(given, "NODE_ALLOW_PLAINTEXT"),
        allow_process=fallback or read_flag(given, "NODE_ALLOW_PROCESS"),
        process_is_fallback=fallback,
        allow_noop=read_flag(given, "NODE_ALLOW_NOOP"),
        podman_args=tuple(given.get("NODE_PODMAN_ARGS", "").split()),
        podman_run_args=tuple(given.get("NODE_PODMAN_RUN_ARGS", "").split()),
        spool_limit_bytes=read_number(given, "NODE_SPOOL_LIMIT_MB", 0, 1, 1 << 20) << 20 or None,
        limits=limits,
        tool_env={name: env[name] for name in TOOL_NAMES if name in env},
    )


def _default_state_dir(env: Mapping[str, str]) -> Path:
    """Below XDG_STATE_HOME; root's own home is closed to the users that its jobs run as, so not there."""
    if not env.get("XDG_STATE_HOME") and os.geteuid() == 0:
        return Path("/var/lib/cynode/node")
    return Path(env.get("XDG_STATE_HOME") or Path(env.get("HOME") or "/") / ".local" / "state") / "cynode-node"


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text()
        found = _read_yaml(text) if path.suffix in (".yaml", ".yml") else tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise BadSetting(f"{path}: cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise BadSetting(f"{path}: must hold settings, one a line")
    return found


def _read_yaml(text: str) -> Any:
    import yaml  # only who has such a file pays for it

    try:
        return yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _as_text(value: object) -> str | None:
    if isinstance(value, dict):
        return ",".join(f"{name}={text}" for name, text in value.items())
    if isinstance(value, list):
        return ",".join(str(part) for part in value)
    if isinstance(value, bool):
        return "1" if value else None
    return None if value is None else str(value)


def _local_limits(table: object) -> LocalLimits:
    if not isinstance(table, dict):
        raise BadSetting("limits: must be a table")
    readers: dict[str, Callable[[Any], Any]] = {
        "images": lambda value: tuple(str(pattern) for pattern in value),
        "network": lambda value: {"none": False, "restricted": True}[value],
        "memory_mb": int,
        "cpus": float,
        "pids": int,
        "max_timeout": seconds,
    }
    if unknown := sorted(set(table) - set(readers)):
        raise BadSetting(f"limits.{unknown[0]}: unknown; known are {', '.join(readers)}")
    values = {}
    for name, value in table.items():
        try:
            values["max_timeout_seconds" if name == "max_timeout" else name] = readers[name](value)
        except (ValueError, TypeError, KeyError, BadSetting) as error:
            raise BadSetting(f"limits.{name}: {value!r} is not valid") from error
    return LocalLimits(**values)
