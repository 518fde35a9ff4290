"""Submitting: `task create` hands the task over, `task run` also stays with it to its end."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from orchestrator.cli.context import Call, pass_call, shared_options
from orchestrator.cli.failures import Exit, Failure, GatewayAway, Interrupted
from orchestrator.cli.job_options import body_of, duration, megabytes, pair, work_of
from orchestrator.cli.output import shown
from orchestrator.cli.words import RunCommand

F = TypeVar("F", bound=Callable[..., Any])
WORDS_LAST = {"allow_interspersed_args": False}
OPTIONS = (
    click.option("--script", metavar="FILE|-", help="Run this file, by its #! line or sh."),
    click.option("--command", "commands", multiple=True, metavar="LINE",
                 help="Run this line; repeat for more, in order."),
    click.option("--name", help="The task's name."),
    click.option("--image", help="Run in this container image."),
    click.option("--env", multiple=True, type=pair, metavar="K=V", help="A variable of the job's environment."),
    click.option("--timeout", type=duration, help="Stop the job after this: 90s, 15m, 2h."),
    click.option("--queue-timeout", type=duration, help="Give up if it has not started by then."),
    click.option("--label", multiple=True, type=pair, metavar="K=V", help="A label of the task, to find it by."),
    click.option("--require-label", multiple=True, type=pair, metavar="K=V", help="Only on nodes with this label."),
    click.option("--runtime", type=click.Choice(["podman", "docker", "bubblewrap", "process", "noop"]),
                 help="Only in this kind of sandbox."),
    click.option("--gpu", is_flag=True, help="Only on nodes with a GPU."),
    click.option("--network", type=click.Choice(["none", "restricted"]), help="What the sandbox may reach."),
    click.option("--memory", type=megabytes, help="Limit: 512m, 2g."),
    click.option("--cpus", type=click.FloatRange(min=0, min_open=True), help="Limit: 0.5, 2."),
    click.option("--pids", type=click.IntRange(min=1), help="Limit on processes and threads."),
    click.option("--max-attempts", type=click.IntRange(min=1), help="1: never start it twice."),
    click.option("--retry-on", multiple=True, type=click.Choice(["exit", "timeout"]), help="Try again after this too."),
    click.option("--priority", type=click.IntRange(-100, 100), help="Among your own tasks; higher goes first."),
    click.option("--idempotency-key", metavar="KEY", help="The same key and task twice make one task."),
)  # fmt: skip


def submission(command: F) -> F:
    command = click.argument("words", nargs=-1, type=click.UNPROCESSED)(command)
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@click.command(context_settings=WORDS_LAST)
@submission
@shared_options
@pass_call
def create(
    call: Call, /, script: str | None, commands: tuple[str, ...], words: tuple[str, ...], idempotency_key: str | None,
    **options: Any,
) -> None:  # fmt: skip
    """Submit a task and leave: cynode task create -- WORDS…"""
    made = _submit(call, work_of(script, commands, words), options, idempotency_key)
    if call.printer.as_json:
        call.printer.value(made)
    elif call.printer.quiet:
        call.printer.line(str(made.get("id")))
    else:
        call.printer.facts({name: made.get(name) for name in ("task_name", "id", "status")})


@click.command(cls=RunCommand, context_settings=WORDS_LAST)
@submission
@click.option("--follow", "-f", is_flag=True, help="Show the output as it comes, not at the end.")
@shared_options
@pass_call
def run(
    call: Call, /, script: str | None, commands: tuple[str, ...], words: tuple[str, ...], idempotency_key: str | None,
    follow: bool, **options: Any,
) -> int:  # fmt: skip
    """Submit a task, wait for it, show its output and end with its exit code: cynode task run -- WORDS…

    124: it ran out of time; 130: it was canceled; 125: cynode itself failed.
    """
    from orchestrator.cli.watching import see_to_end

    made = _submit(call, work_of(script, commands, words), options, idempotency_key)
    call.printer.note(f"cynode: task {shown(made['task_name'])} ({shown(made['id'])})")
    return see_to_end(call, str(made["id"]), name=str(made["task_name"]), follow=follow)


def _submit(call: Call, work: dict[str, str], options: dict[str, Any], key: str | None) -> dict[str, Any]:
    gateway = call.open_gateway()
    try:
        made = gateway.post("/v1/tasks", body_of(work, options), key=key)
    except KeyboardInterrupt:
        raise Interrupted("It is not known whether the task was taken; `cynode task list` shows it if so.") from None
    except GatewayAway as fault:
        raise Failure(fault.code, f"{fault.text}; `cynode task list` shows whether the task was taken") from fault
    if not isinstance(made, dict) or not made.get("id") or not made.get("task_name"):
        raise Failure(Exit.GATEWAY, f"what answers at {call.url} is no cynode gateway")
    return made
