"""Which runtime a job gets here, or why it gets none. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from node_agent.config import LocalLimits, NodeConfig
from node_agent.sandbox.runtime import Found, Runtime, SandboxSettings
from node_agent.sandbox.spec import JobToRun, Limits, RuntimeName
from node_link.messages import RejectReason

WITH_IMAGES: tuple[RuntimeName, ...] = ("podman", "docker")


class Refused(Exception):
    """This node does not run the job; the reason is one of the protocol's."""

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(detail)
        self.reason: RejectReason = reason


@dataclass(frozen=True)
class Chosen:
    runtime: Runtime
    job: JobToRun
    """With this node's default image and stricter limits."""


def choose(job: JobToRun, offered: Mapping[RuntimeName, Runtime], config: NodeConfig, max_timeout: float) -> Chosen:
    """Raises Refused."""
    _check_local(job, config.limits)
    if job.gpu:
        raise Refused("unsupported", "no runtime here gives a job a GPU")
    for name in _candidates(job, config):
        runtime = offered.get(name)
        if runtime is not None and (runtime.limits or not job.limits):
            return Chosen(runtime, _as_here(job, runtime, config, max_timeout))
    raise _why_none(job, offered, config)


def _candidates(job: JobToRun, config: NodeConfig) -> tuple[RuntimeName, ...]:
    """In the order of preference."""
    if job.runtime is not None:
        fits = job.runtime in WITH_IMAGES if job.image else job.runtime not in WITH_IMAGES or config.default_image
        return (job.runtime,) if fits else ()
    if job.image is not None:
        return WITH_IMAGES
    return ("bubblewrap", *(WITH_IMAGES if config.default_image else ()), "process")


def _check_local(job: JobToRun, local: LocalLimits) -> None:
    if job.image and local.images is not None and not any(fnmatchcase(job.image, one) for one in local.images):
        raise Refused("forbidden_here", f"image {job.image} is not among those that this node allows")
    if job.network != "none" and not local.network:
        raise Refused("forbidden_here", f"this node allows no job with network {job.network}")
    for name in ("memory_mb", "cpus", "pids"):
        asked, most = getattr(job.limits, name), getattr(local, name)
        if asked is not None and most is not None and asked > most:
            raise Refused("forbidden_here", f"{name} {asked} is above this node's own limit of {most}")


def _as_here(job: JobToRun, runtime: Runtime, config: NodeConfig, max_timeout: float) -> JobToRun:
    local = config.limits
    image = job.image or (config.default_image if runtime.images else None)
    limits = job.limits.over(Limits(local.memory_mb, local.cpus, local.pids)) if runtime.limits else job.limits
    timeout = min(job.timeout_seconds, max_timeout, local.max_timeout_seconds)
    if (image, limits, timeout) == (job.image, job.limits, job.timeout_seconds):
        return job
    return replace(job, image=image, limits=limits, timeout_seconds=timeout)


def _why_none(job: JobToRun, offered: Mapping[RuntimeName, Runtime], config: NodeConfig) -> Refused:
    if job.runtime is not None and job.runtime not in offered and _is_forbidden(job.runtime, config):
        return Refused("forbidden_here", f"this node's own configuration does not allow runtime {job.runtime}")
    if job.runtime is not None and job.runtime in offered and not _candidates(job, config):
        wants = "an image" if job.image else "no image, and this node has no default one"
        return Refused("unsupported", f"the job names {wants}, which does not go with runtime {job.runtime}")
    found = [name for name in _candidates(job, config) if name in offered]
    if found:
        return Refused("unsupported", f"the job names resources, and {', '.join(found)} cannot limit them here")
    wanted = job.runtime or ("podman or docker, for its image" if job.image else "a sandbox")
    return Refused("unsupported", f"this node does not offer {wanted}")


def _is_forbidden(name: RuntimeName, config: NodeConfig) -> bool:
    narrowed = config.runtimes is not None and name not in config.runtimes
    return narrowed or (name == "process" and not config.allow_process) or (name == "noop" and not config.allow_noop)


def without_fallback(found: Sequence[Found]) -> list[Found]:
    """Drops plain processes where a real sandbox runs jobs that name no image."""
    better = any(one.name == "bubblewrap" and one.runtime for one in found)
    return [
        Found(one.name, None, "not offered: bubblewrap works here", None) if better and one.name == "process" else one
        for one in found
    ]


def sandbox_settings(config: NodeConfig, state_id: str, mounts: Path) -> SandboxSettings:
    return SandboxSettings(
        state_id=state_id,
        mounts=mounts,
        slots=config.slots,
        offered=config.runtimes,
        allow_process=config.allow_process,
        allow_noop=config.allow_noop,
        default_image=config.default_image,
        podman_args=config.podman_args,
        podman_run_args=config.podman_run_args,
        tool_env=config.tool_env,
    )
