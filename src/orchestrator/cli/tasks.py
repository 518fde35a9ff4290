"""The tasks: list, look at, watch, cancel."""

from typing import Any

import click

from orchestrator.cli.context import Call, confirm, pass_call, shared_options, yes_option
from orchestrator.cli.gateway_paths import task_path
from orchestrator.cli.job_options import pair
from orchestrator.cli.outcome import document_of, with_documents
from orchestrator.cli.output import flat, shown, write_bytes
from orchestrator.cli.task_run import create, run
from orchestrator.cli.words import JobCommand

STATUSES = ["queued", "running", "completed", "failed", "canceled", "superseded"]
COLUMNS = ("task_name", "status", "created_at", "id")


@click.group
def task() -> None:
    """Submit tasks and see what became of them."""


@click.command("list")
@click.option("--status", type=click.Choice(STATUSES), help="Only these.")
@click.option("--label", type=pair, multiple=True, metavar="K=V", help="Only with this label.")
@click.option("--limit", type=click.IntRange(1, 200), help="How many at most (50).")
@click.option("--cursor", help="Go on where the last page ended.")
@shared_options
@pass_call
def list_tasks(
    call: Call, status: str | None, label: tuple[tuple[str, str], ...], limit: int | None, cursor: str | None
) -> None:
    """Your tasks, the newest first."""
    wanted = {"status": status, "label": list(map("=".join, label)), "limit": limit, "cursor": cursor}
    page = call.open_gateway().get("/v1/tasks", wanted)
    if call.printer.as_json:
        call.printer.value(page)
        return
    call.printer.table(["name", "status", "created", "id"], [_row(item) for item in page.get("tasks", [])])
    call.printer.next_page(page)


def _row(item: dict[str, Any]) -> list[object]:
    return [item.get(name) for name in COLUMNS]


@click.command
@click.argument("task")
@shared_options
@pass_call
def get(call: Call, task: str) -> None:
    """What was asked for, and how far it is."""
    found = call.open_gateway().get(task_path(task))
    if call.printer.as_json:
        call.printer.value(found)
    else:
        call.printer.facts(flat({name: value for name, value in found.items() if name not in ("task_id", "summary")}))


@click.command(cls=JobCommand)
@click.argument("task")
@click.option("--interval", type=click.IntRange(1, 60), default=2, show_default=True, help="Seconds between two looks.")
@click.option("--exit-status", is_flag=True, help="End with the job's exit code.")
@shared_options
@pass_call
def watch(call: Call, task: str, interval: int, exit_status: bool) -> int:
    """Wait until the task has ended."""
    from orchestrator.cli.watching import watch_to_end

    code = watch_to_end(call, task, interval)
    return code if exit_status else 0


@click.command
@click.argument("task")
@click.option("--stream", type=click.Choice(["all", "stdout", "stderr"]), default="all", help="Only this one.")
@click.option("--attempt", type=click.IntRange(min=1), help="Not of the last attempt, but of this one.")
@click.option("--follow", "-f", is_flag=True, help="Go on until the task ends.")
@shared_options
@pass_call
def logs(call: Call, task: str, stream: str, attempt: int | None, follow: bool) -> None:
    """The job's output, to stdout and stderr as the job wrote it; what is not UTF-8 comes as U+FFFD."""
    if follow and attempt:
        raise click.UsageError("--follow shows every attempt as it comes; leave out --attempt")
    if follow:
        from orchestrator.cli.watching import follow_logs

        follow_logs(call, task, stream)
        if not call.printer.as_json:
            return
    found = call.open_gateway().get(task_path(task, "logs"), {"stream": stream, "attempt": attempt})
    if call.printer.as_json:
        call.printer.value(found)
        return
    write_bytes(str(found.get("stdout") or "").encode("utf-8", "replace"))
    write_bytes(str(found.get("stderr") or "").encode("utf-8", "replace"), to_stderr=True)


@click.command
@click.argument("task")
@yes_option
@shared_options
@pass_call
def cancel(call: Call, task: str, yes: bool) -> None:
    """Stop the task, and its job where it runs."""
    path = task_path(task, "cancel")
    confirm(f"Cancel the task {shown(task)}?", yes)
    answer = call.open_gateway().post(path)
    if call.printer.as_json:
        call.printer.value(answer)
    elif answer.get("canceled"):
        call.printer.note(f"{shown(task)} is canceled.")
    else:
        call.printer.note(f"{shown(task)} had ended before.")


@click.command
@click.argument("task")
@click.option("--wait", type=click.IntRange(0, 60), help="Seconds to wait for the end.")
@shared_options
@pass_call
def result(call: Call, task: str, wait: int | None) -> None:
    """How each job ended, and what it wrote."""
    found = call.open_gateway().get(task_path(task, "result"), {"wait": wait}, wait=wait or 0)
    if call.printer.as_json:
        call.printer.value(with_documents(found))
        return
    call.printer.facts({"task": found.get("task_id"), "status": found.get("status")})
    for job in found.get("jobs", []):
        _show_job(call, job)


def _show_job(call: Call, job: dict[str, Any]) -> None:
    document = document_of(job)
    call.printer.line("")
    facts = {"job": job.get("id"), "status": document.get("status") or job.get("status")}
    facts |= {name: document.get(name) for name in ("exit_code", "error", "node_slug", "runtime", "attempt")}
    facts |= {name: document.get(name) or job.get(name) for name in ("started_at", "ended_at")}
    call.printer.facts(facts | {"truncated": [name for name, cut in (document.get("truncated") or {}).items() if cut]})
    for stream in ("stdout", "stderr"):
        if document.get(stream):  # among our own lines, so what acts on a terminal is escaped; `logs` has it as it is
            call.printer.line(f"{stream}:\n" + shown(document[stream].rstrip("\n"), keep="\n\t"))


for command in (run, create, list_tasks, get, watch, logs, cancel, result):
    task.add_command(command)
