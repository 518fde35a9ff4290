"""The messages of a link: frozen models, one class a `type`.

Unknown fields are ignored, so that old nodes meet new servers. Times never travel: a record carries its age, measured
by the node's monotonic clock when the frame is built.
"""

from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from pydantic import AliasChoices, Base64Bytes, BaseModel, ConfigDict, Field

PROTOCOL = 1
SUBPROTOCOL = "node-link.v1"
MAX_FRAME_BYTES = 1 << 20
STREAM_CAP_BYTES = 1 << 20
"""The first so many bytes of each stream of an attempt are kept; what comes after is dropped and flagged."""

Stream = Literal["stdout", "stderr"]
ReportedOutcome = Literal["completed", "failed", "timeout", "canceled", "lost", "handed_back"]
CancelReason = Literal["canceled", "fenced", "recall", "timeout"]
RejectReason = Literal["busy", "draining", "canceled", "unsupported", "forbidden_here", "invalid"]
HeldState = Literal["taken", "running", "finished"]
DrainState = Literal["none", "draining"]
ConfigStatus = Literal["applied", "failed", "rolled_back"]

Name = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00]*$")]
"""No NUL: the database stores none."""
Count = Annotated[int, Field(ge=0, lt=1 << 53)]
Age = Annotated[float, Field(ge=0, le=10 * 365 * 86400, allow_inf_nan=False)]


class Part(BaseModel):
    """What messages are made of."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class Message(Part):
    type: str

    sender: ClassVar[Literal["node", "server", "both"]]


class AttemptRef(Part):
    """One attempt of one job. The assignment id is random, so an attempt number alone never names it."""

    job_id: UUID
    attempt: Annotated[int, Field(ge=1, lt=1 << 31)]
    assignment_id: UUID


class HeldAttempt(AttemptRef):
    state: HeldState = "running"


class Assignment(AttemptRef):
    task_id: UUID
    job_spec: dict[str, Any]
    timeout_seconds: Annotated[float, Field(gt=0)]


class Rejection(AttemptRef):
    reason: RejectReason
    detail: Annotated[str, Field(max_length=2000)] | None = None


class Cancellation(AttemptRef):
    reason: CancelReason
    grace_seconds: Annotated[float, Field(ge=0)] = 10.0


class PerStream(Part):
    stdout: Count = 0
    stderr: Count = 0


class PerStreamFlag(Part):
    stdout: bool = False
    stderr: bool = False


class Record(AttemptRef):
    """A report that stays in the node's spool until an `ack` names a position above its own."""

    position: Count
    age: Age = Field(default=0.0, validation_alias=AliasChoices("age", "age_seconds"))
    """Seconds since the thing happened, by the node's monotonic clock."""


class StartedRecord(Record):
    runtime: Annotated[str, Field(max_length=64)] | None = None


class OutputRecord(Record):
    stream: Stream
    byte_offset: Count = Field(validation_alias=AliasChoices("byte_offset", "offset"))
    data: Base64Bytes


class FinishedRecord(Record):
    outcome: ReportedOutcome
    started: bool = True
    """Whether anything of the job ever ran; false with `failed` is a fault of the node."""
    exit_code: int | None = Field(default=None, ge=-(1 << 31), lt=1 << 31)
    total_bytes: PerStream = PerStream()
    """Bytes of each stream that were sent as output records; `finished` is applied when they are stored."""
    truncated: PerStreamFlag = PerStreamFlag()
    error: Annotated[str, Field(max_length=2000)] | None = None


RecordType = type[Record]


class Hello(Message):
    type: Literal["hello"] = "hello"
    protocol_version: int
    node_slug: Name
    agent_version: Annotated[str, Field(max_length=64, pattern=r"^[^\x00]*$")] = ""
    agent_start_id: Name
    spool_id: Name
    dial: Count = 0
    """Rises with each dial of one agent start, so that a hello that was overtaken takes nothing from a later one."""
    slots: Annotated[int, Field(ge=0, le=10_000)]
    prefetch: Annotated[int, Field(ge=0, le=100_000)] = 0
    held: tuple[HeldAttempt, ...] = ()
    capability_hash: Annotated[str, Field(max_length=128)] = ""

    sender = "node"


class Welcome(Message):
    type: Literal["welcome"] = "welcome"
    link_id: UUID
    heartbeat_interval: Annotated[float, Field(gt=0)]
    """Seconds between two heartbeats of the node; silence of 1.5 of them ends the link at either end."""
    keep: tuple[AttemptRef, ...] = ()
    kill: tuple[AttemptRef, ...] = ()
    drain_state: DrainState = "none"
    config_version: str = ""
    oldest_agent_version: str = ""

    sender = "server"


class JobsAssign(Message):
    type: Literal["jobs.assign"] = "jobs.assign"
    jobs: tuple[Assignment, ...]

    sender = "server"


class JobsAccepted(Message):
    type: Literal["jobs.accepted"] = "jobs.accepted"
    jobs: tuple[AttemptRef, ...]

    sender = "node"


class JobsRejected(Message):
    type: Literal["jobs.rejected"] = "jobs.rejected"
    jobs: tuple[Rejection, ...]

    sender = "node"


class JobsStarted(Message):
    """Records are raw here: each is validated by itself, so that a bad one costs only itself."""

    type: Literal["jobs.started"] = "jobs.started"
    jobs: tuple[dict[str, Any], ...]

    sender = "node"
    record: ClassVar[RecordType] = StartedRecord


class JobsOutput(Message):
    type: Literal["jobs.output"] = "jobs.output"
    jobs: tuple[dict[str, Any], ...]

    sender = "node"
    record: ClassVar[RecordType] = OutputRecord


class JobsFinished(Message):
    type: Literal["jobs.finished"] = "jobs.finished"
    jobs: tuple[dict[str, Any], ...]

    sender = "node"
    record: ClassVar[RecordType] = FinishedRecord


class Ack(Message):
    """Every record of this spool with a position below `position` is committed and may be forgotten."""

    type: Literal["ack"] = "ack"
    spool_id: str
    position: Count

    sender = "server"


class JobsCancel(Message):
    type: Literal["jobs.cancel"] = "jobs.cancel"
    jobs: tuple[Cancellation, ...]

    sender = "server"


class Heartbeat(Message):
    """The server answers each at once with an empty one."""

    type: Literal["heartbeat"] = "heartbeat"
    held: tuple[HeldAttempt, ...] = ()
    free_slots: int | None = None
    load: float | None = None
    disk: dict[str, Any] | float | None = None

    sender = "both"


class Config(Message):
    type: Literal["config"] = "config"
    config_version: str
    config: dict[str, Any]

    sender = "server"


class ConfigAck(Message):
    type: Literal["config.ack"] = "config.ack"
    config_version: Annotated[str, Field(max_length=64, pattern=r"^[^\x00]*$")]
    status: ConfigStatus
    error: Annotated[str, Field(max_length=2000)] | None = None

    sender = "node"


class Capability(Message):
    type: Literal["capability"] = "capability"
    capability: dict[str, Any]
    capability_hash: Annotated[str, Field(max_length=128)] = ""

    sender = "node"


class Drain(Message):
    type: Literal["drain"] = "drain"
    drain_state: DrainState = "draining"

    sender = "server"


class StopAll(Message):
    """End every job; each is handed back. New work is rejected until the node's next hello."""

    type: Literal["stop_all"] = "stop_all"
    reason: str = ""

    sender = "server"


class LinkError(Message):
    type: Literal["error"] = "error"
    code: str
    message: str
    message_type: str | None = None

    sender = "both"


ReportMessage = JobsStarted | JobsOutput | JobsFinished

MESSAGES: tuple[type[Message], ...] = (
    Hello,
    Welcome,
    JobsAssign,
    JobsAccepted,
    JobsRejected,
    JobsStarted,
    JobsOutput,
    JobsFinished,
    Ack,
    JobsCancel,
    Heartbeat,
    Config,
    ConfigAck,
    Capability,
    Drain,
    StopAll,
    LinkError,
)
