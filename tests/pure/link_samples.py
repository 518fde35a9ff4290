"""One full message of each type, for golden files and tables."""

from uuid import UUID

from node_link import messages as m

JOB = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
TASK = UUID("01890a5d-ac96-774b-bcce-b302099a8058")
ASSIGNMENT = UUID("3b241101-e2bb-4255-8caf-4136c566a962")
LINK = UUID("3b241101-e2bb-4255-8caf-4136c566a963")
REF = {"job_id": JOB, "attempt": 2, "assignment_id": ASSIGNMENT}
WIRE_REF = {"job_id": str(JOB), "attempt": 2, "assignment_id": str(ASSIGNMENT)}

SAMPLES: tuple[m.Message, ...] = (
    m.Hello(
        protocol_version=1,
        node_slug="n1",
        agent_version="0.1.0",
        agent_start_id="start",
        spool_id="spool",
        dial=3,
        slots=8,
        prefetch=4,
        held=(m.HeldAttempt(**REF, state="finished"),),
        capability_hash="abc",
    ),
    m.Welcome(
        link_id=LINK,
        heartbeat_interval=10,
        keep=(m.AttemptRef(**REF),),
        kill=(m.AttemptRef(**REF),),
        drain_state="draining",
        config_version="01ARZ3NDEKTSV4RRFFQ69G5FAV",
        oldest_agent_version="0.1.0",
    ),
    m.JobsAssign(
        jobs=(
            m.Assignment(**REF, task_id=TASK, job_spec={"input_mode": "script", "script": "true"}, timeout_seconds=60),
        )
    ),
    m.JobsAccepted(jobs=(m.AttemptRef(**REF),)),
    m.JobsRejected(jobs=(m.Rejection(**REF, reason="unsupported", detail="no podman here"),)),
    m.JobsStarted(jobs=({**WIRE_REF, "position": 1, "age": 0.5, "runtime": "podman"},)),
    m.JobsOutput(
        jobs=({**WIRE_REF, "position": 2, "age": 0.25, "stream": "stdout", "byte_offset": 0, "data": "aGkK"},)
    ),
    m.JobsFinished(
        jobs=(
            {
                **WIRE_REF,
                "position": 3,
                "age": 0.125,
                "outcome": "failed",
                "started": True,
                "exit_code": 3,
                "total_bytes": {"stdout": 3, "stderr": 0},
                "truncated": {"stdout": False, "stderr": False},
                "error": "exit",
            },
        )
    ),
    m.Ack(spool_id="spool", position=4),
    m.JobsCancel(jobs=(m.Cancellation(**REF, reason="recall", grace_seconds=2.5),)),
    m.Heartbeat(held=(m.HeldAttempt(**REF, state="running"),), free_slots=3, load=0.5, disk={"free_mb": 100}),
    m.Config(config_version="01ARZ3NDEKTSV4RRFFQ69G5FAV", config={"version": 1}),
    m.ConfigAck(config_version="01ARZ3NDEKTSV4RRFFQ69G5FAV", status="failed", error="no"),
    m.Capability(capability={"version": 1}, capability_hash="abc"),
    m.Drain(drain_state="draining"),
    m.StopAll(reason="stopping"),
    m.LinkError(code="unknown_type", message="unknown message type 'weather'", message_type="weather"),
)
