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
Fault = Literal["kill", "stop", "cut", "delay", "deaf", "dumb", "deaf_kill", "repeat", "disk", "clock"]
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
SERVERS = ("control-1", "control-2", "gateway")
DATABASE = "postgres"

HEARTBEAT = 1.0
LEASE = 4.0


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
class Plan:
    seed: int
    seconds: float
    jobs: list[Job] = field(default_factory=list)
    blows: list[Blow] = field(default_factory=list)


def make_plan(
    seed: int, jobs: int, faults: Mapping[Fault, int] | None = None, kinds: Mapping[Kind, int] | None = None
) -> Plan:
    """`faults` and `kinds` give some of them other weights than usual."""
    chance = random.Random(seed)
    seconds = min(400.0, 20.0 + 0.5 * jobs)
    plan = Plan(seed, seconds)
    mix = KINDS | dict(kinds or {})
    for number in range(jobs):
        kind = list(mix)[number] if number < len(mix) else chance.choices(list(mix), list(mix.values()))[0]
        plan.jobs.append(
            Job(number, kind, chance.uniform(0, 0.85 * seconds), chance.uniform(0.5, 7), chance.uniform(0, 4))
        )
    plan.jobs.sort(key=lambda job: job.at)
    weights = FAULTS | dict(faults or {})
    at = 0.0
    while at < seconds:
        blow = _blow(chance, weights)
        plan.blows.append(blow)
        at += blow.pause
    return plan


def _blow(chance: random.Random, weights: dict[Fault, int]) -> Blow:
    fault = chance.choices(list(weights), list(weights.values()))[0]
    pause, strength = chance.uniform(0.3, 1.8), chance.random()
    long = chance.random() < 0.3
    seconds = chance.uniform(LEASE + 1.5, LEASE + 4) if long else chance.uniform(0.2, 0.6 * LEASE)
    if fault in ("kill", "stop"):
        target = chance.choice([*NODES, *SERVERS, DATABASE])
    elif fault == "clock":
        target = chance.choice([*NODES, *SERVERS])
    elif fault == "disk":
        target = FULL_DISK_NODE
    else:
        target = chance.choice(NODES)
    return Blow(pause, fault, target, seconds, strength)
