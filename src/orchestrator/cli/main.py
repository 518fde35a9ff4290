"""The command's root, and the one place where faults become exit codes."""

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import click

from orchestrator.cli.context import Call, pass_call, shared_options
from orchestrator.cli.failures import Exit, Failure, Interrupted
from orchestrator.cli.output import shown
from orchestrator.cli.words import LateGroup

COMMANDS = {
    "login": "auth:login", "logout": "auth:logout", "whoami": "auth:whoami",
    "task": "tasks:task", "node": "nodes:node", "queue": "queue:queue", "user": "users:user",
    "up": "up:up", "serve": "serve:serve", "migrate": "serve:migrate", "config": "serve:config",
    "version": "version:version",
}  # fmt: skip
ALSO = {
    "auth": "auth:auth", "tasks": "tasks:task", "nodes": "nodes:node", "users": "users:user",
    "run": "task_run:run", "create": "task_run:create", "list": "tasks:list_tasks", "get": "tasks:get",
    "watch": "tasks:watch", "logs": "tasks:logs", "cancel": "tasks:cancel", "result": "tasks:result",
}  # fmt: skip


@click.group(cls=LateGroup, late=COMMANDS, also=ALSO, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-c", "--config", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Instead of $XDG_CONFIG_HOME/cynode/config.yaml.")  # fmt: skip
@click.option("--gateway-url", envvar="CYNODE_GATEWAY_URL", metavar="URL",
              help="The gateway. [env: CYNODE_GATEWAY_URL]")  # fmt: skip
@click.option("--token", envvar="CYNODE_TOKEN", hidden=True)
@click.version_option(package_name="cynode", message="%(prog)s %(version)s")
@click.option("--plain-by-env", envvar="NO_COLOR", hidden=True)
@shared_options
@pass_call
def cynode(
    call: Call, config: Path | None, gateway_url: str | None, token: str | None, plain_by_env: str | None
) -> None:
    """Submit tasks to a cynode orchestrator and look after it.

    Start with `cynode up`, or `cynode login` where one runs already; then `cynode task run --follow -- echo hello`.
    """
    call.config, call.gateway, call.token = config, gateway_url or None, token or None
    if plain_by_env:
        call.printer.colour = False


def run(arguments: Sequence[str]) -> int:
    call = Call()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        with cynode.make_context(
            "cynode", list(arguments), obj=call
        ) as ctx:  # click's `main` has exit codes of its own
            code = cynode.invoke(ctx)
        sys.stdout.flush()
        return code if isinstance(code, int) else Exit.OK
    except click.exceptions.Exit as done:  # --help, --version
        return done.exit_code
    except click.UsageError as error:
        _usage(error)
        return _own(call, Exit.USAGE)
    except click.ClickException as error:
        _say(shown(error.format_message()))
        return _own(call, Exit.USAGE)
    except Failure as fault:
        _say(fault.text)
        return _own(call, fault.code)
    except Interrupted as pause:
        print(f"\n{pause.text}", file=sys.stderr)
        return _own(call, Exit.INTERRUPTED)
    except (KeyboardInterrupt, click.Abort):
        print(file=sys.stderr)
        return _own(call, Exit.INTERRUPTED)
    except BrokenPipeError:
        _forget_stdout()
        return _own(call, Exit.PIPE_CLOSED)
    except Exception:  # noqa: BLE001 - the process ends here, and a bug has an exit code of its own
        traceback.print_exc()
        _say("this is a bug in cynode; the lines above say where")
        return _own(call, Exit.INTERNAL)


def _own(call: Call, code: Exit) -> int:
    return Exit.OWN_FAULT if call.reports_job else code


def _say(text: str) -> None:
    print(f"cynode: {text}", file=sys.stderr)


def _usage(error: click.UsageError) -> None:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        print(error.format_message(), file=sys.stderr)
        return
    if error.ctx is not None:
        print(shown(error.ctx.get_usage(), keep="\n"), file=sys.stderr)
    _say(shown(error.format_message(), keep="\n"))


def _forget_stdout() -> None:
    """The interpreter would flush it at exit and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
