"""A node's report about itself: what of it must be right. Whatever else it says is kept and not judged."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.domain.errors import Invalid, TooLarge
from orchestrator.domain.nodes import read_slug

VERSION = 1
UNSUPPORTED = "https://cynode.ai/problems/unsupported-payload-version"
LARGEST_BYTES = 256 << 10

TEXTS = (
    "reported_at",
    "node.name",
    "platform.os",
    "platform.distro",
    "platform.arch",
    "platform.kernel_version",
    "container_runtime.runtime",
    "container_runtime.version",
    "compute.cpu_model",
    "worker_api.base_url",
)
NUMBERS = ("compute.cpu_cores", "compute.ram_mb", "compute.storage_free_mb", "sandbox.max_concurrency")
FLAGS = (
    "gpu.present",
    "sandbox.supported",
    "inference.supported",
    "container_runtime.rootless_supported",
    "container_runtime.rootless_enabled",
)
OBJECTS = ("node", "platform", "compute", "container_runtime", "gpu", "sandbox", "inference", "worker_api")


@dataclass(frozen=True, slots=True)
class Report:
    slug: str
    name: str | None
    worker_api_url: str
    raw: Mapping[str, Any] = field(repr=False)

    @property
    def hash(self) -> str:
        """The same for the same machine, whenever the report is taken; the node makes it in the same way."""
        stable = {name: value for name, value in self.raw.items() if name != "reported_at"}
        if isinstance(compute := stable.get("compute"), Mapping):
            stable["compute"] = {name: value for name, value in compute.items() if name != "storage_free_mb"}
        return hashlib.sha256(json.dumps(stable, sort_keys=True).encode()).hexdigest()


def read_report(raw: Mapping[str, Any]) -> Report:
    """Raises Invalid naming the field, TooLarge."""
    check_version(raw.get("version"))
    for name in OBJECTS:
        _check(raw, name, Mapping, "an object")
    for name in TEXTS:
        _check(raw, name, str, "a text")
    for name in NUMBERS:
        _check(raw, name, (int, float), "a number")
    for name in FLAGS:
        _check(raw, name, bool, "true or false")
    _check_labels(_at(raw, "node.labels"))
    _check_runtimes(raw.get("runtimes"))
    slug = read_slug(_at(raw, "node.node_slug"))
    if len(json.dumps(raw)) > LARGEST_BYTES:
        raise TooLarge(f"capability: a report has at most {LARGEST_BYTES >> 10} KiB")
    return Report(slug, _at(raw, "node.name"), _at(raw, "worker_api.base_url") or "", raw)


def check_version(version: object) -> None:
    """Of any payload that a node sends."""
    if version is None:
        raise Invalid(f"version: is required, and must be {VERSION}", field="version")
    if type(version) is not int or version != VERSION:
        raise Invalid(
            f"payload version {version!r} is not supported; supported: {VERSION}",
            kind=UNSUPPORTED,
            supported_versions=[VERSION],
        )


def _at(raw: Mapping[str, Any], path: str) -> Any:
    value: Any = raw
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _check(raw: Mapping[str, Any], path: str, kind: type | tuple[type, ...], what: str) -> None:
    value = _at(raw, path)
    mixed_up = kind is not bool and isinstance(value, bool)
    if value is not None and (mixed_up or not isinstance(value, kind)):
        raise _wrong(path, what)


def _check_labels(labels: Any) -> None:
    """An object of texts, or a list of words."""
    if isinstance(labels, Mapping):
        labels = list(labels.values())
    if labels is not None and not (isinstance(labels, list) and all(isinstance(each, str) for each in labels)):
        raise _wrong("node.labels", "an object whose values are texts")


def _check_runtimes(runtimes: Any) -> None:
    if runtimes is None:
        return
    if not isinstance(runtimes, list):
        raise _wrong("runtimes", "a list")
    for nth, offer in enumerate(runtimes):
        if not isinstance(offer, Mapping) or not isinstance(offer.get("name"), str):
            raise _wrong(f"runtimes.{nth}.name", "a text")
        for flag in ("limits", "images"):
            if not isinstance(offer.get(flag, False), bool):
                raise _wrong(f"runtimes.{nth}.{flag}", "true or false")


def _wrong(path: str, what: str) -> Invalid:
    return Invalid(f"capability.{path}: must be {what}", field=f"capability.{path}")
