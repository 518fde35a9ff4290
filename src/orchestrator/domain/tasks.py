"""What a user asked for: how it is stored, how its status is shown, and what is refused."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Literal
from uuid import UUID

from orchestrator.domain.errors import Invalid, TooLarge, Unavailable
from orchestrator.domain.ids import JobId, ProjectId, TaskId, UserId
from orchestrator.domain.jobspec import JobOptions, JobRules, encode_spec, requirement_of
from orchestrator.domain.names import generated_name, is_uuid_shaped, normalise_name
from orchestrator.domain.states import TaskStatus

InputMode = Literal["prompt", "script", "commands"]
LONGEST_PROMPT: Mapping[InputMode, int] = MappingProxyType(
    {"prompt": 1 << 20, "script": 256 << 10, "commands": 64 << 10}
)
"""In bytes of UTF-8."""


_SHOWN: Mapping[TaskStatus, str] = MappingProxyType(
    {status: "queued" if status is TaskStatus.PENDING else status.value for status in TaskStatus}
)
_STORED: Mapping[str, TaskStatus] = MappingProxyType({shown: status for status, shown in _SHOWN.items()})


def show_status(status: TaskStatus) -> str:
    """The one place where a stored status becomes the word that users see."""
    return _SHOWN[status]


def read_status(shown: str) -> TaskStatus:
    try:
        return _STORED[shown]
    except KeyError:
        raise Invalid("Invalid status", field="status") from None


@dataclass(frozen=True, slots=True)
class Task:
    id: TaskId
    owner: UserId
    project_id: ProjectId
    name: str
    summary: str | None
    input_mode: str
    prompt: str
    attachments: tuple[str, ...]
    labels: Mapping[str, str]
    priority: int
    status: TaskStatus
    retry_of: TaskId | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class TaskWanted:
    """What a user sent, each field of its right type; `plan_task` judges the rest."""

    prompt: str
    input_mode: InputMode = "prompt"
    use_inference: bool = False
    use_sba: bool = False
    task_name: str = ""
    project_id: str = ""
    attachments: tuple[str, ...] = ()
    job: JobOptions = field(default_factory=JobOptions)
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    priority: int = 0


@dataclass(frozen=True, slots=True)
class NewTask:
    """A task and its one job, ready to be stored; only the name may still get a suffix."""

    id: TaskId
    job_id: JobId
    owner: UserId
    project_id: ProjectId | None
    """None: the owner's default project."""
    name: str
    input_mode: InputMode
    prompt: str
    attachments: tuple[str, ...]
    labels: Mapping[str, str]
    priority: int
    retry_of: TaskId | None
    created_at: datetime
    requirement: str
    spec: str
    """JSON, without the task's name."""
    timeout_seconds: float
    max_attempts: int
    retry_on: tuple[str, ...]
    queue_timeout_seconds: float | None
    """From its commit on, by the database's clock."""

    def stored(self, name: str, project_id: ProjectId) -> Task:
        return Task(
            id=self.id,
            owner=self.owner,
            project_id=project_id,
            name=name,
            summary=None,
            input_mode=self.input_mode,
            prompt=self.prompt,
            attachments=self.attachments,
            labels=self.labels,
            priority=self.priority,
            status=TaskStatus.PENDING,
            retry_of=self.retry_of,
            created_at=self.created_at,
            updated_at=self.created_at,
        )


def plan_task(
    wanted: TaskWanted, owner: UserId, task_id: TaskId, job_id: JobId, now: datetime, rules: JobRules
) -> NewTask:
    """Raises what the user is to be told; nothing is stored before every task of a request has passed here."""
    _check_prompt(wanted)
    project = read_project_id(wanted.project_id)
    name = choose_name(wanted.task_name, task_id)
    if wanted.input_mode == "prompt" or wanted.use_inference or wanted.use_sba:
        raise Unavailable("no inference path available")
    options = wanted.job
    return NewTask(
        id=task_id,
        job_id=job_id,
        owner=owner,
        project_id=project,
        name=name,
        input_mode=wanted.input_mode,
        prompt=wanted.prompt,
        attachments=wanted.attachments,
        labels=wanted.labels,
        priority=wanted.priority,
        retry_of=None,
        created_at=now,
        requirement=requirement_of(options),
        spec=encode_spec(wanted.input_mode, wanted.prompt, options),
        timeout_seconds=rules.timeout_of(options),
        max_attempts=rules.attempts_of(options),
        retry_on=options.retry_on,
        queue_timeout_seconds=options.queue_timeout_seconds,
    )


def choose_name(wanted: str, task_id: TaskId) -> str:
    name = normalise_name(wanted)
    if is_uuid_shaped(name):
        raise Invalid("task_name: looks like a uuid, and a task's id is read before its name", field="task_name")
    return name or generated_name(task_id)


def read_project_id(text: str) -> ProjectId | None:
    if not text:
        return None
    if not is_uuid_shaped(text):
        raise Invalid("project_id: is no uuid", field="project_id")
    return ProjectId(UUID(text))


def _check_prompt(wanted: TaskWanted) -> None:
    most = LONGEST_PROMPT[wanted.input_mode]
    if len(wanted.prompt) > most or len(wanted.prompt.encode()) > most:
        raise TooLarge(f"prompt: {wanted.input_mode} may have at most {most >> 10} KiB of UTF-8 text", field="prompt")
