"""Which runtime a job gets on a node, or why none: one table."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from node_agent.choose import Refused, choose
from node_agent.config import LocalLimits, NodeConfig, load
from node_agent.sandbox.noop import NoopRuntime
from node_agent.sandbox.spec import JobToRun, Limits, RuntimeName

CONFIG = replace(load({"NODE_SLUG": "n1"}), allow_process=True, allow_noop=True)
DEFAULT_IMAGE = replace(CONFIG, default_image="base")
LIMITED = Limits(memory_mb=64)


class Offered(NoopRuntime):
    """A runtime by its properties: nothing runs here."""

    def __init__(self, name: RuntimeName, *, limits: bool = True, images: bool = False) -> None:
        self.name = name
        self.limits = limits
        self.images = images


ALL: tuple[Offered, ...] = (
    Offered("podman", images=True),
    Offered("docker", images=True),
    Offered("bubblewrap"),
    Offered("process", limits=False),
    Offered("noop", limits=False),
)


def offered(*names: str) -> dict[RuntimeName, Offered]:
    return {one.name: one for one in ALL if one.name in names}


def job(**fields: Any) -> JobToRun:
    zero = UUID(int=0)
    return JobToRun(zero, zero, 1, zero, "script", 100.0, script="true", **fields)


@pytest.mark.parametrize(
    ("wanted", "names", "config", "runtime"),
    [
        (job(), "podman bubblewrap process", CONFIG, "bubblewrap"),
        (job(), "podman process", DEFAULT_IMAGE, "podman"),
        (job(), "podman process", CONFIG, "process"),
        (job(image="a"), "podman docker bubblewrap", CONFIG, "podman"),
        (job(image="a"), "docker bubblewrap", CONFIG, "docker"),
        (job(limits=LIMITED), "bubblewrap process", CONFIG, "bubblewrap"),
        (job(limits=LIMITED), "process podman", DEFAULT_IMAGE, "podman"),
        (job(runtime="process"), "bubblewrap process", CONFIG, "process"),
        (job(runtime="podman"), "podman bubblewrap", DEFAULT_IMAGE, "podman"),
        (job(runtime="noop"), "noop", CONFIG, "noop"),
    ],
)
def test_what_a_job_gets(wanted: JobToRun, names: str, config: NodeConfig, runtime: str) -> None:
    assert choose(wanted, offered(*names.split()), config, 1000).runtime.name == runtime


@pytest.mark.parametrize(
    ("wanted", "names", "config", "reason", "text"),
    [
        (job(), "podman noop", CONFIG, "unsupported", "sandbox"),
        (job(), "noop", CONFIG, "unsupported", "sandbox"),
        (job(image="a"), "bubblewrap process", CONFIG, "unsupported", "podman or docker"),
        (job(limits=LIMITED), "process", CONFIG, "unsupported", "process cannot limit"),
        (job(runtime="podman"), "podman", CONFIG, "unsupported", "no default one"),
        (job(runtime="bubblewrap", image="a"), "bubblewrap", CONFIG, "unsupported", "an image"),
        (job(runtime="docker", image="a"), "podman", CONFIG, "unsupported", "docker"),
        (job(runtime="process"), "bubblewrap", replace(CONFIG, allow_process=False), "forbidden_here", "process"),
        (
            job(runtime="podman", image="a"),
            "",
            replace(CONFIG, runtimes=frozenset({"noop"})),
            "forbidden_here",
            "podman",
        ),
        (job(image="b"), "podman", replace(CONFIG, limits=LocalLimits(images=("a*",))), "forbidden_here", "image b"),
        (
            job(network="restricted"),
            "bubblewrap",
            replace(CONFIG, limits=LocalLimits(network=False)),
            "forbidden_here",
            "network",
        ),
        (
            job(limits=LIMITED),
            "bubblewrap",
            replace(CONFIG, limits=LocalLimits(memory_mb=32)),
            "forbidden_here",
            "memory_mb",
        ),
        (job(gpu=True), "bubblewrap", CONFIG, "unsupported", "GPU"),
    ],
)
def test_why_a_job_gets_none(wanted: JobToRun, names: str, config: NodeConfig, reason: str, text: str) -> None:
    with pytest.raises(Refused, match=text) as refused:
        choose(wanted, offered(*names.split()), config, 1000)
    assert refused.value.reason == reason


def test_local_limits_shorten_and_fill_in() -> None:
    config = replace(DEFAULT_IMAGE, limits=LocalLimits(memory_mb=128, pids=9, max_timeout_seconds=50))
    found = choose(job(limits=LIMITED), offered("podman"), config, 70).job
    assert found.limits == Limits(memory_mb=64, pids=9)
    assert found.timeout_seconds == 50
    assert found.image == "base"
    assert choose(job(), offered("bubblewrap"), config, 20).job.timeout_seconds == 20
    assert choose(job(), offered("process"), config, 20).job.limits == Limits()
