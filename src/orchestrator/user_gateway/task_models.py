"""Tasks on the wire: what a user may send, and what is shown."""

from typing import Annotated, Any, Literal

from pydantic import Field

from orchestrator.api.http import Body
from orchestrator.domain.jobspec import JobOptions
from orchestrator.domain.tasks import Task, TaskWanted, show_status
from orchestrator.domain.times import rfc3339

LabelName = Annotated[str, Field(min_length=1, max_length=128)]
LabelValue = Annotated[str, Field(max_length=1024)]
FileName = Annotated[str, Field(min_length=1, max_length=255)]
Glob = Annotated[str, Field(min_length=1, max_length=1024)]
Labels = Annotated[dict[LabelName, LabelValue], Field(max_length=32)]
YEAR = 366 * 86400
PLAIN = JobOptions()


class Resources(Body):
    memory_mb: int | None = Field(default=None, ge=1, lt=1 << 40)
    cpus: float | None = Field(default=None, gt=0, le=100_000)
    pids: int | None = Field(default=None, ge=1, lt=1 << 31)


class Requires(Body):
    labels: Labels | None = None
    gpu: bool = False
    runtime: Literal["podman", "docker", "bubblewrap", "process", "noop"] | None = None


# Models as defaults would be copied for each request; what is not said is None instead.
ANY, NOTHING = Resources(), Requires()


class Job(Body):
    image: str | None = Field(default=None, min_length=1, max_length=512)
    env: dict[str, str] | None = None
    timeout_seconds: float | None = None
    network: Literal["none", "restricted"] = "none"
    resources: Resources | None = None
    requires: Requires | None = None
    max_attempts: int | None = Field(default=None, ge=1, le=100)
    retry_on: tuple[Literal["exit", "timeout"], ...] = Field(default=(), max_length=2)
    queue_timeout_seconds: float | None = Field(default=None, gt=0, le=YEAR)
    artifacts: tuple[Glob, ...] = Field(default=(), max_length=64)

    def options(self) -> JobOptions:
        resources, requires = self.resources or ANY, self.requires or NOTHING
        return JobOptions(
            image=self.image,
            env=self.env or {},
            timeout_seconds=self.timeout_seconds,
            network=self.network,
            memory_mb=resources.memory_mb,
            cpus=resources.cpus,
            pids=resources.pids,
            labels=requires.labels or {},
            gpu=requires.gpu,
            runtime=requires.runtime,
            max_attempts=self.max_attempts,
            retry_on=self.retry_on,
            queue_timeout_seconds=self.queue_timeout_seconds,
            artifacts=self.artifacts,
        )


class CreateTask(Body):
    prompt: str = Field(min_length=1)
    input_mode: Literal["prompt", "script", "commands"] = "prompt"
    use_inference: bool = False
    use_sba: bool = False
    task_name: str | None = None
    project_id: str | None = None
    attachments: tuple[FileName, ...] = Field(default=(), max_length=16)
    job: Job | None = None
    labels: Labels | None = None
    priority: int = Field(default=0, ge=-100, le=100)

    def wanted(self) -> TaskWanted:
        return TaskWanted(
            prompt=self.prompt,
            input_mode=self.input_mode,
            use_inference=self.use_inference,
            use_sba=self.use_sba,
            task_name=self.task_name or "",
            project_id=self.project_id or "",
            attachments=self.attachments,
            job=self.job.options() if self.job else PLAIN,
            labels=self.labels or {},
            priority=self.priority,
        )


class CreateBatch(Body):
    tasks: tuple[CreateTask, ...] = Field(min_length=1, max_length=1000)


def task_view(task: Task) -> dict[str, Any]:
    view: dict[str, Any] = {
        "id": str(task.id),
        "task_id": str(task.id),
        "status": show_status(task.status),
        "task_name": task.name,
        "summary": task.name if task.summary is None else task.summary,
        "prompt": task.prompt,
        "created_at": rfc3339(task.created_at),
        "updated_at": rfc3339(task.updated_at),
        "project_id": str(task.project_id),
        "input_mode": task.input_mode,
        "priority": task.priority,
    }
    further = {
        "attachments": list(task.attachments),
        "labels": dict(task.labels),
        "retry_of": str(task.retry_of or ""),
    }
    return view | {name: value for name, value in further.items() if value}
