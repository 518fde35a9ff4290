"""What every command of one call shares, and the options that may stand anywhere in it."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator.cli.failures import Exit, Failure
from orchestrator.cli.output import Printer
from orchestrator.cli.profile import DEFAULT_GATEWAY, Sessions, configured_gateway, default_config, gateway_url

if TYPE_CHECKING:
    from orchestrator.cli.gateway import Gateway

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True)
class Call:
    """One call of `cynode`, filled while its options are read."""

    printer: Printer = field(default_factory=Printer)
    config: Path | None = None
    gateway: str | None = None
    token: str | None = None
    reports_job: bool = False
    """The exit code is the job's, so that our own faults need one that no job has by custom."""

    @property
    def config_file(self) -> Path:
        return self.config or default_config()

    @property
    def url(self) -> str:
        return gateway_url(self.gateway or configured_gateway(self.config_file) or DEFAULT_GATEWAY)

    def open_gateway(self) -> "Gateway":
        from orchestrator.cli.gateway import Gateway  # the HTTP library is most of a short command's start
        from orchestrator.cli.profile import read_config

        ca_file = read_config(self.config_file).get("ca_file")
        return Gateway(self.url, Sessions(self.config_file), token=self.token, ca_file=ca_file and str(ca_file))


pass_call = click.make_pass_decorator(Call)


def shared_options(command: F) -> F:
    """`-o`, `-q` and `--no-color`, accepted before and after the command's own words."""
    options: tuple[Callable[[F], F], ...] = (
        click.option("-o", "--output", type=click.Choice(["table", "json"]), callback=_set_output, expose_value=False,
                     help="A table for people (default), or one JSON value."),
        click.option("-q", "--quiet", is_flag=True, callback=_set_quiet, expose_value=False,
                     help="Print the result only."),
        click.option("--no-color", is_flag=True, callback=_set_plain, expose_value=False, help="No colours."),
    )  # fmt: skip
    for option in options:
        command = option(command)
    return command


def _set_output(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.ensure_object(Call).printer.as_json = value == "json"


def _set_quiet(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Call).printer.quiet = True


def _set_plain(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Call).printer.colour = False


yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


def confirm(question: str, yes: bool) -> None:
    """Asks on stderr; an answer may come through a pipe, and none at all is a no."""
    if yes:
        return
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort:
        print(file=sys.stderr)
        raise Failure(Exit.USAGE, "nothing was done: nobody answered; -y goes ahead without asking") from None
    if not agreed:
        raise Failure(Exit.USAGE, "nothing was done")


def read_password(from_stdin: bool, *, again: bool) -> str:
    """Never an argument, which all users of the machine could read."""
    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        try:
            password = click.prompt("Password", hide_input=True, confirmation_prompt=again, err=True)
        except click.Abort:
            raise Failure(Exit.USAGE, "no password was given; --password-stdin reads it from a pipe") from None
    if not password:
        raise Failure(Exit.USAGE, "the password is empty")
    return str(password)
