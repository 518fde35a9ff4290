"""serve, migrate and config: for whoever runs the services one by one."""

from pathlib import Path

import click

from orchestrator.cli.context import Call, confirm, pass_call, shared_options, yes_option
from orchestrator.cli.failures import Exit, Failure
from orchestrator.cli.output import shown

settings_option = click.option(
    "--settings", type=click.Path(path_type=Path), metavar="FILE", help="A TOML file; the environment wins over it."
)


@click.group
def serve() -> None:
    """Run one service against DATABASE_URL, until it is told to stop."""


@serve.command("user-gateway")
@settings_option
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    metavar="N",
    help="Processes on this port, each with DATABASE_POOL_SIZE connections; about one a core.",
)
def user_gateway(settings: Path | None, workers: int) -> None:
    """What people and client programs talk to (port 12080)."""
    from orchestrator.cli import parts

    if workers == 1:
        parts.serve("user-gateway", settings)
    else:
        parts.serve_with_workers(settings, workers)


@serve.command("control-plane")
@settings_option
def control_plane(settings: Path | None) -> None:
    """What worker nodes talk to (port 12082)."""
    from orchestrator.cli import parts

    parts.serve("control-plane", settings)


@click.group
def migrate() -> None:
    """Bring the database's schema forward or back."""


@migrate.command("up")
@settings_option
@shared_options
@pass_call
def migrate_up(call: Call, settings: Path | None) -> None:
    """Apply what is missing."""
    _migrate(call, "up", settings)


@migrate.command("down")
@yes_option
@settings_option
@shared_options
@pass_call
def migrate_down(call: Call, settings: Path | None, yes: bool) -> None:
    """Take back the last step, with whatever it stored."""
    confirm("Take the last migration back? What only it could store is lost.", yes)
    _migrate(call, "down", settings)


@migrate.command("status")
@settings_option
@shared_options
@pass_call
def migrate_status(call: Call, settings: Path | None) -> None:
    """What is applied, and what is missing."""
    _migrate(call, "status", settings)


def _migrate(call: Call, direction: str, settings: Path | None) -> None:
    from orchestrator.cli import parts

    said = parts.migrate(direction, settings)
    if call.printer.as_json:
        call.printer.value({"migrate": direction, "said": said.splitlines()})
    else:
        call.printer.line(shown(said, keep="\n"))


@click.group
def config() -> None:
    """The services' settings."""


@config.command
@click.argument("service", type=click.Choice(["user-gateway", "control-plane"]), required=False)
@settings_option
@shared_options
@pass_call
def check(call: Call, service: str | None, settings: Path | None) -> None:
    """Print what is in force, secrets masked, and what is wrong (for one service, or all)."""
    from orchestrator.cli import parts
    from orchestrator.config import SERVICES

    wanted = tuple(name for name in SERVICES[:2] if service in (None, name))
    in_force, faults = parts.describe(wanted, settings)
    if call.printer.as_json:
        call.printer.value({"settings": dict(in_force), "faults": faults})
    else:
        call.printer.facts(dict(in_force))
    if faults:
        raise Failure(Exit.USAGE, "these settings will not do:\n  " + "\n  ".join(map(shown, faults)))
    call.printer.note("These settings will do.")
