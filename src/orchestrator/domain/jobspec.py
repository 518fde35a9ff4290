"""What a job is told to do (its spec, as a node gets it) and what a node may refuse it by (its requirement)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from orchestrator.domain.errors import Invalid, TooLarge
from orchestrator.domain.names import MOST as LONGEST_NAME

LARGEST_SPEC = 512 << 10
MOST_ENV_NAMES = 256
LARGEST_ENV = 64 << 10
OURS = "CYNODE_"
_NAME_ROOM = LONGEST_NAME + len(',"task_name":""')

Network = Literal["none", "restricted"]
RuntimeName = Literal["podman", "docker", "bubblewrap", "process", "noop"]
Labels = Mapping[str, str]
_NO_LABELS: Labels = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class JobOptions:
    """`job` of a task, each field of its right type; None is: not said."""

    image: str | None = None
    env: Mapping[str, str] = field(default_factory=lambda: _NO_LABELS)
    timeout_seconds: float | None = None
    network: Network = "none"
    memory_mb: int | None = None
    cpus: float | None = None
    pids: int | None = None
    labels: Labels = field(default_factory=lambda: _NO_LABELS)
    gpu: bool = False
    runtime: RuntimeName | None = None
    max_attempts: int | None = None
    retry_on: tuple[str, ...] = ()
    queue_timeout_seconds: float | None = None
    artifacts: tuple[str, ...] = ()
    sandboxed: bool = False
    """Not to run as a plain process, whoever offers that."""


@dataclass(frozen=True, slots=True)
class JobRules:
    """What this server allows, and what it takes where a job says nothing."""

    longest_timeout: float = 10800.0
    default_timeout: float = 3600.0
    default_attempts: int = 3

    def timeout_of(self, options: JobOptions) -> float:
        if options.timeout_seconds is None:
            return min(self.default_timeout, self.longest_timeout)
        if not 1 <= options.timeout_seconds <= self.longest_timeout:
            raise Invalid(
                f"job.timeout_seconds: must be between 1 and {self.longest_timeout:g}", field="job.timeout_seconds"
            )
        return options.timeout_seconds

    def attempts_of(self, options: JobOptions) -> int:
        return self.default_attempts if options.max_attempts is None else options.max_attempts


def encode_spec(input_mode: str, prompt: str, options: JobOptions) -> str:
    """The spec as JSON, but for the task's name, which is final only when the task is stored."""
    _check_env(options.env)
    _check_image(options.image)
    text = _json(build_spec(input_mode, prompt, options))
    if len(text.encode()) + _NAME_ROOM > LARGEST_SPEC:
        raise TooLarge(f"the job takes more than {LARGEST_SPEC >> 10} KiB when it is encoded", field="job")
    return text


def build_spec(input_mode: str, prompt: str, options: JobOptions) -> dict[str, Any]:
    """What is not said is left out."""
    spec: dict[str, Any] = {"input_mode": input_mode, "network": options.network}
    if input_mode == "commands":
        spec["commands"] = commands_of(prompt)
    else:
        spec["script"] = prompt
    said = {
        "image": options.image,
        "env": dict(options.env),
        "resources": _resources(options),
        "requires": _said({"labels": dict(options.labels), "gpu": options.gpu, "runtime": options.runtime}),
        "artifacts": list(options.artifacts),
    }
    return spec | _said(said)


def commands_of(prompt: str) -> list[str]:
    """One command a line; an empty line is none."""
    lines = [line.rstrip("\r") for line in prompt.split("\n")]
    commands = [line for line in lines if line.strip()]
    if not commands:
        raise Invalid("prompt: holds no command", field="prompt")
    return commands


def requirement_of(options: JobOptions) -> str:
    """Canonical JSON with every field, so that equal needs are one row."""
    return _json(
        {
            **({"sandboxed": True} if options.sandboxed else {}),
            "labels": dict(options.labels),
            "gpu": options.gpu,
            "runtime": options.runtime,
            "image": options.image,
            "network": options.network,
            "resources": _resources(options),
        },
        sort_keys=True,
    )


def _resources(options: JobOptions) -> dict[str, Any]:
    cpus = options.cpus
    whole = int(cpus) if cpus is not None and cpus == int(cpus) else cpus
    return _said({"memory_mb": options.memory_mb, "cpus": whole, "pids": options.pids})


def _said(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


def _json(value: Any, *, sort_keys: bool = False) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=sort_keys)


def _check_env(env: Mapping[str, str]) -> None:
    if len(env) > MOST_ENV_NAMES:
        raise Invalid(f"job.env: has more than {MOST_ENV_NAMES} names", field="job.env")
    for name in env:
        if not name or "=" in name:
            raise Invalid(f"job.env: {name[:64]!r} cannot be the name of a variable", field="job.env")
        if name.startswith(OURS):
            raise Invalid(f"job.env: {name[:64]}: names that begin with {OURS} are set by cynode", field="job.env")
    if sum(len(name.encode()) + len(value.encode()) for name, value in env.items()) > LARGEST_ENV:
        raise Invalid(f"job.env: takes more than {LARGEST_ENV >> 10} KiB", field="job.env")


def _check_image(image: str | None) -> None:
    if image is not None and (not image.isprintable() or " " in image or image.startswith("-")):
        raise Invalid("job.image: is no image reference", field="job.image")
