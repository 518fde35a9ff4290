"""Where plain processes are for admins only."""

import json

import pytest

from orchestrator.app.clock import new_id
from orchestrator.app.sandbox_rule import SandboxRule
from orchestrator.domain.access import Principal
from orchestrator.domain.errors import Forbidden
from orchestrator.domain.jobspec import JobOptions, requirement_of
from orchestrator.domain.selection import NodeAbility, RuntimeOffer
from orchestrator.domain.tasks import TaskWanted
from orchestrator.domain.users import Role
from orchestrator.store.db import Database
from plane import Plane

PLAIN = [TaskWanted("true", "script")]
PROCESS = [TaskWanted("true", "script", job=JobOptions(runtime="process"))]


def principal(role: Role) -> Principal:
    return Principal(new_id(), "ann", new_id(), frozenset({role}))


async def offer(plane: Plane, slug: str, *runtimes: str) -> None:
    node = await plane.node(slug)
    report = {"runtimes": [{"name": name} for name in runtimes]}
    await plane.sql("UPDATE nodes SET capability = $2 WHERE id = $1", node, report)


async def test_without_a_sandbox_only_admins_may_run_tasks(db: Database) -> None:
    await offer(Plane(db), "n", "process")
    rule = SandboxRule(db, process_for_admins_only=True)
    assert await rule.apply(principal(Role.ADMIN), PROCESS) == PROCESS
    with pytest.raises(Forbidden, match="install bubblewrap"):
        await rule.apply(principal(Role.MEMBER), PLAIN)
    with pytest.raises(Forbidden, match="only admins"):
        await rule.apply(principal(Role.MEMBER), PROCESS)
    anyone = SandboxRule(db, process_for_admins_only=False)
    assert await anyone.apply(principal(Role.MEMBER), PROCESS) == PROCESS


async def test_with_a_sandbox_others_run_in_it_and_never_beside_it(db: Database) -> None:
    plane = Plane(db)
    await offer(plane, "n", "process")
    await offer(plane, "m", "bubblewrap", "process")
    [task] = await SandboxRule(db, process_for_admins_only=True).apply(principal(Role.MEMBER), PLAIN)
    requirement = json.loads(requirement_of(task.job))
    only_process = NodeAbility(runtimes=(RuntimeOffer("process", limits=False, images=False),))
    sandbox = NodeAbility(runtimes=(RuntimeOffer("bubblewrap", limits=True, images=False),))
    assert not only_process.meets(1, requirement)
    assert sandbox.meets(1, requirement)
