"""What this machine really has, as the capability report of the contract."""

import hashlib
import json
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from node_agent.choose import WITH_IMAGES
from node_agent.config import NodeConfig
from node_agent.sandbox.runtime import Found

VERSION = 1


def collect(config: NodeConfig, found: Iterable[Found]) -> dict[str, Any]:
    """Reads /proc and the like: quick, but for a thread."""
    found = list(found)
    report = {
        "version": VERSION,
        "reported_at": datetime.now(UTC).isoformat(),
        "node": {"node_slug": config.slug, "name": config.name, "labels": dict(config.labels)},
        "platform": _platform(),
        "compute": _compute(config.state_dir),
        "gpu": _gpu(),
        "sandbox": _sandbox(config, found),
        "container_runtime": _container_runtime(found),
        "inference": {"supported": False},
        "runtimes": [_runtime(one, config) for one in found if one.runtime is not None],
    }
    return {name: value for name, value in report.items() if value is not None}


def hash_of(report: dict[str, Any]) -> str:
    """The same for the same machine, whenever it is taken."""
    stable = {name: value for name, value in report.items() if name != "reported_at"}
    stable["compute"] = {name: value for name, value in report["compute"].items() if name != "storage_free_mb"}
    return hashlib.sha256(json.dumps(stable, sort_keys=True).encode()).hexdigest()


def _platform() -> dict[str, str]:
    system = os.uname()
    found = {"os": system.sysname.lower(), "arch": system.machine, "kernel_version": system.release}
    distro = _field(Path("/etc/os-release"), "PRETTY_NAME=")
    return found | ({"distro": distro.strip('"')} if distro else {})


def _compute(state_dir: Path) -> dict[str, Any]:
    memory = _field(Path("/proc/meminfo"), "MemTotal:") or "0 kB"
    model = _field(Path("/proc/cpuinfo"), "model name")
    found = {
        "cpu_cores": len(os.sched_getaffinity(0)),
        "ram_mb": int(memory.split()[0]) // 1024,
        "storage_free_mb": free_mb(state_dir),
    }
    return found | ({"cpu_model": model.lstrip("\t :")} if model else {})


def free_mb(path: Path) -> int:
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize >> 20


def _gpu() -> dict[str, Any]:
    devices = [
        {"vendor": "nvidia" if path.name.startswith("nvidia") else "unknown", "device_id": path.name}
        for pattern in ("nvidia[0-9]*", "dri/renderD*", "kfd")
        for path in sorted(Path("/dev").glob(pattern))
    ]
    return {"present": bool(devices), **({"devices": devices} if devices else {})}


def _sandbox(config: NodeConfig, found: list[Found]) -> dict[str, Any]:
    names = [one.name for one in found if one.runtime is not None]
    limited = [one.name for one in found if one.runtime is not None and one.runtime.limits]
    features = [*names, *(f"limits:{name}" for name in limited)]
    return {"supported": bool(names), "features": features, "max_concurrency": config.slots}


def _container_runtime(found: list[Found]) -> dict[str, Any] | None:
    for one in found:
        if one.name in WITH_IMAGES and one.runtime is not None:
            rootless = os.geteuid() != 0
            return {
                "runtime": one.name,
                "version": one.detail,
                "rootless_supported": Path("/proc/self/ns/user").exists(),
                "rootless_enabled": rootless,
            }
    return None


def _runtime(one: Found, config: NodeConfig) -> dict[str, Any]:
    assert one.runtime is not None
    images = one.runtime.images
    found = {"name": one.name, "limits": one.runtime.limits, "images": images}
    return found | ({"default_image": config.default_image} if images and config.default_image else {})


def _field(path: Path, start: str) -> str | None:
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return None
    return next((line[len(start) :].strip() for line in lines if line.startswith(start)), None)
