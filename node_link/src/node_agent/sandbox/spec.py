"""What a job is to a sandbox, and what is left when it has ended. Pure: no file, no process, no clock.

A script is one file, run by its `#!` line or else by `sh`. Commands are one command a line: each runs in a shell of its
own, in order, in one sandbox and one workspace, and the first that fails ends the job with its exit code. So files last
from one command to the next, while variables, functions and `cd` do not. A prompt is never run.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from node_link.messages import Assignment, Stream

RuntimeName = Literal["podman", "docker", "bubblewrap", "process", "noop"]
Network = Literal["none", "restricted"]
Outcome = Literal["completed", "failed", "timeout", "canceled", "handed_back"]

STATE_MARK = "CYNODE_STATE_ID"
ASSIGNMENT_MARK = "CYNODE_ASSIGNMENT_ID"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class InvalidSpec(Exception):
    """No node could ever run this job; the text says why, for the user."""


class NodeFault(Exception):
    """This node could not do its part (an image that it cannot pull); the text becomes the attempt's error."""


class PreparedInVain(NodeFault):
    """What `prepare` had found is gone again (an image that somebody removed); nothing was started."""


@dataclass(frozen=True)
class Limits:
    """What a job may use at most; None is no limit of its own."""

    memory_mb: int | None = None
    cpus: float | None = None
    pids: int | None = None

    def __bool__(self) -> bool:
        return any(value is not None for value in (self.memory_mb, self.cpus, self.pids))

    def over(self, defaults: "Limits") -> "Limits":
        """These limits, and the defaults where these name none."""
        return Limits(
            defaults.memory_mb if self.memory_mb is None else self.memory_mb,
            defaults.cpus if self.cpus is None else self.cpus,
            defaults.pids if self.pids is None else self.pids,
        )


@dataclass(frozen=True)
class JobToRun:
    task_id: UUID
    job_id: UUID
    attempt: int
    assignment_id: UUID
    input_mode: Literal["script", "commands"]
    timeout_seconds: float
    script: str = ""
    commands: tuple[str, ...] = ()
    task_name: str = ""
    image: str | None = None
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    network: Network = "none"
    limits: Limits = Limits()
    runtime: RuntimeName | None = None
    """The one runtime that the job asks for."""
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    gpu: bool = False


@dataclass(frozen=True)
class Ending:
    """How an attempt ended. `total_bytes` counts what `on_output` was given; `truncated` says that more was dropped."""

    outcome: Outcome
    started: bool = True
    exit_code: int | None = None
    total_bytes: Mapping[Stream, int] = field(default_factory=lambda: MappingProxyType({"stdout": 0, "stderr": 0}))
    truncated: Mapping[Stream, bool] = field(
        default_factory=lambda: MappingProxyType({"stdout": False, "stderr": False})
    )
    error: str | None = None


@dataclass(frozen=True)
class Program:
    """The one file that is put beside the job's workspace, and whether it names its own interpreter."""

    name: str
    content: bytes
    by_itself: bool

    def argv(self, folder: str) -> tuple[str, ...]:
        return self.argv_of(f"{folder}/{self.name}")

    def argv_of(self, path: str) -> tuple[str, ...]:
        return (path,) if self.by_itself else ("/bin/sh", path)


class _Resources(BaseModel):
    memory_mb: Annotated[int, Field(ge=1, lt=1 << 40)] | None = None
    cpus: Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)] | None = None
    pids: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None


class _Requires(BaseModel):
    labels: dict[str, str] | None = None
    gpu: bool = False
    runtime: RuntimeName | None = None


class _JobSpec(BaseModel):
    """Absent is None: pydantic copies any other default for each job."""

    model_config = ConfigDict(extra="ignore")

    input_mode: Literal["script", "commands"]
    script: str | None = None
    commands: list[str] | None = None
    task_name: str = ""
    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    env: dict[str, str] | None = None
    network: Network = "none"
    resources: _Resources | None = None
    requires: _Requires | None = None


def parse_spec(assignment: Assignment) -> JobToRun:
    """The job of an assignment; raises InvalidSpec with a text that names the field."""
    if assignment.job_spec.get("input_mode") == "prompt":
        raise InvalidSpec("input_mode: a prompt is for a model and is never run as a command")
    try:
        spec = _JobSpec.model_validate(assignment.job_spec)
    except ValidationError as error:
        raise InvalidSpec(_first_problem(error)) from error
    _check_texts(spec)
    resources, requires = spec.resources, spec.requires
    return JobToRun(
        task_id=assignment.task_id,
        job_id=assignment.job_id,
        attempt=assignment.attempt,
        assignment_id=assignment.assignment_id,
        input_mode=spec.input_mode,
        timeout_seconds=assignment.timeout_seconds,
        script=spec.script or "",
        commands=tuple(spec.commands or ()),
        task_name=spec.task_name,
        image=spec.image,
        env=MappingProxyType(spec.env or {}),
        network=spec.network,
        limits=Limits(resources.memory_mb, resources.cpus, resources.pids) if resources else Limits(),
        runtime=requires.runtime if requires else None,
        labels=MappingProxyType((requires.labels if requires else None) or {}),
        gpu=requires.gpu if requires else False,
    )


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "job_spec"
    return f"{where}: {first['msg']}"[:1000]


def _check_texts(spec: _JobSpec) -> None:
    if spec.input_mode == "script" and not spec.script:
        raise InvalidSpec("script: is missing or empty")
    if spec.input_mode == "commands" and not spec.commands:
        raise InvalidSpec("commands: is missing or empty")
    if spec.image is not None and (spec.image.startswith("-") or not spec.image.isprintable() or " " in spec.image):
        raise InvalidSpec("image: is no image reference")
    env = spec.env or {}
    for name, value in env.items():
        if not name or "=" in name or "\0" in name + value:
            raise InvalidSpec(f"env: {name[:64]!r} cannot be a variable (no empty name, no '=' in it, no NUL)")
    if any("\0" in command for command in spec.commands or ()):
        raise InvalidSpec("commands: a command cannot hold a NUL character")
    for text in (spec.script or "", spec.image or "", *(spec.commands or ()), *env, *env.values()):
        _check_encodable(text)


def _check_encodable(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidSpec("job_spec: holds half a surrogate pair, which is no text") from error


def program_of(job: JobToRun) -> Program:
    if job.input_mode == "script":
        return Program("script", job.script.encode(), by_itself=job.script.startswith("#!"))
    return Program("commands", _commands_file(job.commands).encode(), by_itself=False)


def _commands_file(commands: tuple[str, ...]) -> str:
    # A subshell with eval rather than `sh -c`: a command may be longer than the 128 KiB that exec allows an argument.
    # No `||` after it, since that would turn off a `set -e` inside.
    lines = [f'( eval {shlex.quote(command)} )\nr=$?; [ "$r" = 0 ] || exit "$r"\n' for command in commands]
    return "".join(lines)


def environment_of(job: JobToRun, workspace: str) -> dict[str, str]:
    """What the job sees: a small base, the user's own, and ours, which nobody overrides."""
    own = {name: value for name, value in job.env.items() if not name.upper().startswith("CYNODE_")}
    return {
        "PATH": DEFAULT_PATH,
        "HOME": workspace,
        "TMPDIR": "/tmp",
        "LANG": "C.UTF-8",
        **own,
        "CYNODE_TASK_ID": str(job.task_id),
        "CYNODE_JOB_ID": str(job.job_id),
        "CYNODE_ATTEMPT": str(job.attempt),
        ASSIGNMENT_MARK: str(job.assignment_id),
        "CYNODE_WORKSPACE_DIR": workspace,
    }


def exit_code_of(returncode: int) -> int:
    """Popen's return code as a shell tells it: 128 + n after signal n."""
    return 128 - returncode if returncode < 0 else returncode
