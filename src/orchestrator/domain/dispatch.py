"""What a claim hands to a node."""

from dataclasses import dataclass

from orchestrator.domain.ids import AssignmentId, JobId, LinkId, NodeId, TaskId


@dataclass(frozen=True, slots=True)
class Held:
    """An attempt as the control-plane that holds its node's link knows it."""

    job_id: JobId
    attempt: int
    assignment_id: AssignmentId
    task_id: TaskId
    spec: str
    """JSON; it goes to the node as it is."""
    timeout_seconds: float
    accepted: bool = False
    started: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """A linked node with room, as the claim needs it. `max_timeout` shortens what a job asked for."""

    node_id: NodeId
    link_id: LinkId
    spool_id: str
    slug: str
    free: int
    able: frozenset[int]
    max_timeout: float | None = None


@dataclass(frozen=True, slots=True)
class ClaimedRow:
    """A queued job that a claim has locked; it is given to a node, or stays where it is."""

    job_id: JobId
    task_id: TaskId
    group_id: int
    requirement_id: int
    attempt: int
    spec: str
    timeout_seconds: float
