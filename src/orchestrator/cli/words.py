"""Groups that load their commands late and know other words for them, and commands that end with a job's code."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

from orchestrator.cli.context import Call


class LateGroup(click.Group):
    """`late`: word → `module:attribute`, imported when the word is used. `also`: more words, not listed in the help."""

    def __init__(
        self, *args: Any, late: Mapping[str, str] | None = None, also: Mapping[str, str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._late = dict(late or {})
        self._also = dict(also or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self._late, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        path = self._late.get(cmd_name) or self._also.get(cmd_name)
        if path is None:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = path.partition(":")
        found = getattr(import_module(f"orchestrator.cli.{module}"), attribute)
        assert isinstance(found, click.Command)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            ctx.fail(f"no such command: {args[0]!r}; `{ctx.command_path} --help` lists them")
        return super().resolve_command(ctx, args)


class JobCommand(click.Command):
    """Ends with the job's own code: always, or if asked by `--exit-status`."""

    always = False

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.ensure_object(Call).reports_job = self.always or "--exit-status" in args
        return super().parse_args(ctx, args)


class RunCommand(JobCommand):
    always = True
