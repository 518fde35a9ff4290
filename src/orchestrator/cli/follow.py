"""Looking on at a task until it ends, across broken connections."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from orchestrator.cli.failures import GatewayAway, Interrupted
from orchestrator.cli.gateway import Gateway
from orchestrator.cli.gateway_paths import task_path
from orchestrator.cli.outage import Outage
from orchestrator.cli.outcome import document_of, has_ended
from orchestrator.cli.output import Printer, shown, write_bytes
from orchestrator.cli.replay import Written
from orchestrator.cli.sse import Event, parse_events

LONGEST_WAIT = 30


def events(gateway: Gateway, task: str, outage: Outage) -> Iterator[Event]:
    """Every event once as far as the gateway can tell, up to and with `end`."""
    last_id: str | None = None
    while True:
        try:
            with gateway.stream(task_path(task, "events"), last_id) as chunks:
                for event in parse_events(_noticed(chunks, outage)):
                    last_id = event.id or last_id
                    yield event
                    if event.name == "end":
                        return
            raise GatewayAway("the gateway ended the stream before the task ended")
        except GatewayAway as fault:
            outage.wait(fault)


def _noticed(chunks: Iterator[bytes], outage: Outage) -> Iterator[bytes]:
    for chunk in chunks:
        outage.over()
        yield chunk


def follow_output(gateway: Gateway, task: str, printer: Printer, *, stream: str = "all") -> None:
    """Writes what the job writes to the same descriptors, as it comes; in JSON mode to stderr alone."""
    written = Written()
    for event in events(gateway, task, Outage(printer.note)):
        if event.name == "output" and stream in ("all", event.data.get("stream")):
            text = written.new_part(event.data)
            if text:
                to_stderr = printer.as_json or event.data["stream"] == "stderr"
                write_bytes(text.encode("utf-8", "replace"), to_stderr=to_stderr)
        elif event.name == "job":
            _note_attempt(event.data, printer)


def _note_attempt(job: dict[str, Any], printer: Printer) -> None:
    where = f" on {shown(job['node_slug'])}" if job.get("node_slug") else ""
    attempt = job.get("attempt") or 0
    if job.get("status") == "running":
        again = f", attempt {attempt}: output begins anew" if attempt > 1 else ""
        printer.note(f"cynode: running{where}{again}")
    elif job.get("status") == "queued" and attempt > 0:
        printer.note(f"cynode: attempt {attempt}{where} did not end; queued again")


def wait_for_end(gateway: Gateway, task: str, printer: Printer, *, interval: int = LONGEST_WAIT) -> dict[str, Any]:
    """The result once the task has ended; a note whenever its status changed."""
    outage = Outage(printer.note)
    last = None
    while True:
        asked = time.monotonic()
        try:
            result = gateway.get(task_path(task, "result"), {"wait": interval}, wait=interval)
        except GatewayAway as fault:
            outage.wait(fault)
            continue
        outage.over()
        if result.get("status") != last:
            last = result.get("status")
            printer.note(f"cynode: {shown(last)}")
        if has_ended(result):
            return result
        time.sleep(max(0.0, min(1.0, interval) - (time.monotonic() - asked)))  # a gateway that does not wait


def result_of(gateway: Gateway, task: str) -> dict[str, Any]:
    return gateway.get(task_path(task, "result"))


def write_output(result: dict[str, Any]) -> None:
    for job in result.get("jobs", []):
        document = document_of(job)
        write_bytes(str(document.get("stdout") or "").encode("utf-8", "replace"))
        write_bytes(str(document.get("stderr") or "").encode("utf-8", "replace"), to_stderr=True)


def note_truncation(result: dict[str, Any], printer: Printer) -> None:
    for job in result.get("jobs", []):
        for stream, cut in (document_of(job).get("truncated") or {}).items():
            if cut:
                printer.note(f"cynode: {shown(stream)} was longer than what is kept; the rest was dropped")


@contextmanager
def looking_on(task: str) -> Iterator[None]:
    """Ctrl-C ends the looking on, not the task, and says so."""
    try:
        yield
    except KeyboardInterrupt:
        name = shown(task)
        text = f"task {name} goes on. Look again: cynode task watch {name}   Stop it: cynode task cancel {name}"
        raise Interrupted(text) from None
