"""Staying with one task to its end, and what the shell is told then."""

from orchestrator.cli.context import Call
from orchestrator.cli.follow import follow_output, looking_on, note_truncation, result_of, wait_for_end, write_output
from orchestrator.cli.outcome import exit_code, why, with_documents
from orchestrator.cli.output import shown


def see_to_end(call: Call, task: str, *, name: str, follow: bool) -> int:
    """The job's exit code; its output goes where a local command's would."""
    gateway, printer = call.open_gateway(), call.printer
    with looking_on(name):
        if follow:
            follow_output(gateway, task, printer)
        result = wait_for_end(gateway, task, printer.silent() if follow else printer)
    if printer.as_json:
        printer.value(with_documents(result))
    elif not follow:
        write_output(result)
    note_truncation(result, printer)
    code = exit_code(result)
    if code or result.get("status") != "completed":
        printer.note(f"cynode: task {shown(name)} {shown(why(result))}")
    return code


def watch_to_end(call: Call, task: str, interval: int) -> int:
    """Its exit code; shows each change of its status."""
    with looking_on(task):
        result = wait_for_end(call.open_gateway(), task, call.printer, interval=interval)
    if call.printer.as_json:
        call.printer.value(with_documents(result))
    else:
        call.printer.line(f"{shown(task)}: {shown(why(result))}")
    return exit_code(result)


def follow_logs(call: Call, task: str, stream: str) -> None:
    """The output from its beginning until the task ends; in JSON mode only then, as one value."""
    gateway, printer = call.open_gateway(), call.printer
    with looking_on(task):
        if printer.as_json:
            wait_for_end(gateway, task, printer)
        else:
            follow_output(gateway, task, printer, stream=stream)
            note_truncation(result_of(gateway, task), printer)
