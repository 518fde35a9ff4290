"""Records of the spool ↔ JSON of the wire, as text: they were checked when they were made and are not parsed again."""

import json
from base64 import b64encode
from collections.abc import Iterator, Sequence
from uuid import UUID

from node_agent.spool_format import Entry, Kind, Ref, decode_output
from node_link.messages import AttemptRef

FRAME_BYTES = 256 << 10
"""Well below the limit, so that a heartbeat never waits long behind output."""
RECORDS_A_FRAME = 2000
ERROR_CHARACTERS = 1000

_TYPES = {Kind.STARTED: "jobs.started", Kind.OUTPUT: "jobs.output", Kind.FINISHED: "jobs.finished"}


def started_fields(runtime: str) -> bytes:
    return b'"runtime":' + json.dumps(runtime).encode()


def finished_fields(
    outcome: str,
    *,
    started: bool,
    exit_code: int | None = None,
    total_bytes: dict[str, int] | None = None,
    truncated: dict[str, bool] | None = None,
    error: str | None = None,
) -> bytes:
    """The fields of a finished record behind its attempt; small enough for the room that `taken` reserved."""
    fields: dict[str, object] = {"outcome": outcome, "started": started}
    if exit_code is not None:
        fields["exit_code"] = exit_code
    if total_bytes:
        fields["total_bytes"] = total_bytes
    if truncated:
        fields["truncated"] = truncated
    if error:
        fields["error"] = error[:ERROR_CHARACTERS].encode(errors="replace").decode()
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False)[1:-1].encode()


def frames(reports: Sequence[tuple[Entry, float]]) -> Iterator[tuple[Kind, str]]:
    """Report frames in the records' order: neighbours of one kind share one."""
    parts: list[str] = []
    size = 0
    kind = Kind.STARTED
    for entry, age in reports:
        text = record_text(entry, age)
        if parts and (entry.kind is not kind or size + len(text) > FRAME_BYTES or len(parts) >= RECORDS_A_FRAME):
            yield kind, _frame(kind, parts)
            parts, size = [], 0
        kind = entry.kind
        parts.append(text)
        size += len(text)
    if parts:
        yield kind, _frame(kind, parts)


def _frame(kind: Kind, parts: list[str]) -> str:
    return f'{{"type":"{_TYPES[kind]}","jobs":[{",".join(parts)}]}}'


def record_text(entry: Entry, age: float) -> str:
    ref = entry.ref
    if entry.kind is Kind.OUTPUT:
        stream, byte_offset, data = decode_output(entry.payload)
        fields = f'"stream":"{stream}","byte_offset":{byte_offset},"data":"{b64encode(data).decode()}"'
    else:
        fields = entry.payload.decode()
    return (
        f'{{"job_id":"{_uuid(ref.job_id)}","attempt":{ref.attempt},"assignment_id":"{_uuid(ref.assignment_id)}",'
        f'"position":{entry.position},"age":{age:.6f},{fields}}}'
    )


def _uuid(raw: bytes) -> str:
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def wire_ref(ref: Ref) -> AttemptRef:
    return AttemptRef(job_id=UUID(bytes=ref.job_id), attempt=ref.attempt, assignment_id=UUID(bytes=ref.assignment_id))
