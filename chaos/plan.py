"""What a seed decides: the jobs, when each is submitted, and the faults. Pure."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal[
    "quick", "slow", "noisy", "drip", "failing", "retried", "canceled", "once", "timeout", "sandboxed", "long"
]
KINDS: dict[Kind, int] = {
    "quick": 5,
    "slow": 4,
    "noisy": 3,
    "drip": 3,
    "failing": 2,
    "retried": 2,
    "canceled": 3,
    "once": 3,
    "timeout": 1,
    "sandboxed": 2,
    "long": 2,
}
Fault = Literal["kill", "stop", "cut", "delay", "deaf", "dumb", "deaf_kill", "repeat", "disk", "clock", "frozen_kill"]
FAULTS: dict[Fault, int] = {
    "kill": 6,
    "stop": 4,
    "cut": 5,
    "delay": 2,
    "deaf": 2,
    "dumb": 2,
    "deaf_kill": 3,
    "repeat": 4,
    "disk": 2,
    "clock": 3,
}
NODES = ("n1", "n2", "n3")
FULL_DISK_NODE = "n3"
CONTROL_PLANES = ("control-1", "control-2")
SERVERS = (*CONTROL_PLANES, "gateway")
DATABASE = "postgres"

HEARTBEAT = 1.0
LEASE = 4.0
OFTEN = (0.3, 1.8)
LONG_SHARE = 0.3


@dataclass(frozen=True)
class Job:
    number: int
    kind: Kind
    at: float
    """Seconds after the begin."""
    seconds: float
    """How long it takes, for those that take time."""
    cancel_after: float
    """For those that are canceled: how long after the answer to their submission."""

    @property
    def key(self) -> str:
        return f"job-{self.number}"

    @property
    def max_attempts(self) -> int:
        return 1 if self.kind == "once" else 12


@dataclass(frozen=True)
class Blow:
    """One fault: after the pause, on the target, for so long, so strong."""

    pause: float
    fault: Fault
    target: str
    seconds: float
    strength: float


@dataclass(frozen=True)
class Focus:
    """A mix that brings one rule to bear: these faults and jobs alone, by their weights."""

    faults: Mapping[Fault, int]
    kinds: Mapping[Kind, int]
    pause: tuple[float, float] = OFTEN
    """Least and most seconds before each fault."""
    long_share: float = LONG_SHARE
    """Of the faults, those that outlast a lease."""


USUAL = Focus(FAULTS, KINDS)


@dataclass(frozen=True)
class Plan:
    seed: int
    seconds: float
    jobs: list[Job] = field(default_factory=list)
    blows: list[Blow] = field(default_factory=list)


def make_plan(seed: int, jobs: int, focus: Focus = USUAL) -> Plan:
    chance = random.Random(seed)
    seconds = min(400.0, 20.0 + 0.5 * jobs)
    plan = Plan(seed, seconds)
    mix = dict(focus.kinds)
    for number in range(jobs):
        kind = list(mix)[number] if number < len(mix) else chance.choices(list(mix), list(mix.values()))[0]
        plan.jobs.append(
            Job(number, kind, chance.uniform(0, 0.85 * seconds), chance.uniform(0.5, 7), chance.uniform(0, 4))
        )
    plan.jobs.sort(key=lambda job: job.at)
    at = 0.0
    while at < seconds:
        blow = _blow(chance, focus)
        plan.blows.append(blow)
        at += blow.pause
    return plan


def _blow(chance: random.Random, focus: Focus) -> Blow:
    fault = chance.choices(list(focus.faults), list(focus.faults.values()))[0]
    pause, strength = chance.uniform(*focus.pause), chance.random()
    long = chance.random() < focus.long_share
    seconds = chance.uniform(LEASE + 1.5, LEASE + 4) if long else chance.uniform(0.2, 0.6 * LEASE)
    if fault in ("kill", "stop"):
        target = chance.choice([*NODES, *SERVERS, DATABASE])
    elif fault == "clock":
        target = chance.choice([*NODES, *SERVERS])
    elif fault == "disk":
        target = FULL_DISK_NODE
    elif fault == "frozen_kill":
        target = chance.choice(CONTROL_PLANES)
    else:
        target = chance.choice(NODES)
    return Blow(pause, fault, target, seconds, strength)
