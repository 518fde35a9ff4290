"""Settings: from the environment, else from one TOML file with the same names in lower case, else their defaults.

Nothing else in the server reads the environment (but `faults.py`, whose point is to be out of the way).
"""

import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from orchestrator.config_values import (
    Address,
    DatabaseUrl,
    Duration,
    Networks,
    Url,
    mask_url,
    show_duration,
    weakness,
)

Service = Literal["user-gateway", "control-plane", "mcp-gateway", "api-egress"]
SERVICES: tuple[Service, ...] = get_args(Service)
SHORTEST_PASSWORD = 8
IN_DEVELOPMENT = "for development only"
"""What stands for a secret that is not set, in development mode."""
NO_DATABASE_URL = "DATABASE_URL: is not set; write postgresql://USER:PASSWORD@HOST:PORT/DATABASE"


class BadSettings(Exception):
    """One line for each thing that is wrong, with the setting's name and what to do."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(self.faults))


class Settings(BaseSettings):
    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True, extra="forbid", validate_default=False)

    cynode_development: bool = False
    cynode_state_dir: Path | None = None
    pg_bin_dir: Path | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    database_url: DatabaseUrl | None = None
    database_pool_size: int = Field(10, ge=2, le=200)

    user_gateway_listen_addr: Address = ":12080"
    control_plane_listen_addr: Address = ":12082"
    mcp_gateway_listen_addr: Address = ":12083"
    api_egress_listen_addr: Address = ":12084"
    metrics_listen_addr: Address | None = None
    trusted_proxies: Networks = ()
    orchestrator_public_url: Url | None = None
    max_request_body_mb: int = Field(10, ge=1, le=1024)
    rate_limit_per_minute: int = Field(60, ge=1)
    ready_requires: Literal["node", "database"] = "node"

    jwt_secret: SecretStr | None = None
    jwt_secret_previous: SecretStr | None = None
    jwt_access_duration: Duration = 15 * 60.0
    jwt_refresh_duration: Duration = 168 * 3600.0
    jwt_node_duration: Duration = 24 * 3600.0
    node_registration_psk: SecretStr | None = None
    node_trust_psk: bool = False
    bootstrap_admin_password: SecretStr | None = None

    node_heartbeat_seconds: Duration = 10.0
    node_lease_seconds: Duration = 30.0
    job_max_attempts: int = Field(3, ge=1, le=100)
    shutdown_jobs: Literal["keep", "stop"] = "keep"
    process_jobs: Literal["anyone", "admins"] = "anyone"

    retention_output_days: int = Field(30, ge=1)
    retention_task_days: int = Field(90, ge=1)
    retention_audit_days: int = Field(365, ge=1)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """`given` at a call stands above the environment, the file below it; nothing else is read."""
        given = init_settings()
        return _Fixed(settings_cls, given.pop("given", {})), env_settings, _Fixed(settings_cls, given.pop("file", {}))

    def secret(self, name: Literal["jwt_secret", "node_registration_psk"]) -> str:
        value: SecretStr | None = getattr(self, name)
        return value.get_secret_value() if value is not None else IN_DEVELOPMENT


class _Fixed(PydanticBaseSettingsSource):
    def __init__(self, settings_cls: type[BaseSettings], values: Mapping[str, Any]) -> None:
        super().__init__(settings_cls)
        self._values = values

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        return self._values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return dict(self._values)


def load_settings(file: Path | None = None, **given: Any) -> Settings:
    """`given` wins over the environment, which wins over `file` (or the one that CYNODE_CONFIG names)."""
    named = os.environ.get("CYNODE_CONFIG")
    file = file or (Path(named) if named else None)
    values = _read_file(file) if file else {}
    try:
        return Settings(given=given, file=values)  # type: ignore[call-arg]
    except ValidationError as error:
        raise BadSettings(_fault(fault["loc"], fault["type"], fault["msg"]) for fault in error.errors()) from None


def _fault(place: tuple[int | str, ...], kind: str, text: str) -> str:
    name = str(place[0]).upper() if place else "settings"
    if kind == "extra_forbidden":
        return f"{name}: there is no such setting"
    return f"{name}: {text.removeprefix('Value error, ')}"


def _read_file(file: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(file.read_text())
    except OSError as error:
        raise BadSettings([f"{file}: {error.strerror}"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSettings([f"{file}: this is not TOML: {error}"]) from None
    # The node agent may be given the same file: its names are not for us.
    ours = set(Settings.model_fields)
    return {
        name: value
        for name, value in values.items()
        if name in ours or not name.startswith(("node_", "orchestrator_url"))
    }


def find_faults(settings: Settings, services: Iterable[Service]) -> list[str]:
    """Why these services must not start with these settings."""
    faults = []
    if settings.database_url is None:
        faults.append(NO_DATABASE_URL)
    if settings.node_lease_seconds < 3 * settings.node_heartbeat_seconds:
        faults.append("NODE_LEASE_SECONDS: must be at least three times NODE_HEARTBEAT_SECONDS")
    first = settings.bootstrap_admin_password
    if first is not None and len(first.get_secret_value()) < SHORTEST_PASSWORD:
        faults.append(f"BOOTSTRAP_ADMIN_PASSWORD: must have at least {SHORTEST_PASSWORD} characters")
    if not settings.cynode_development:
        faults += _weak_secrets(settings, services)
    return faults


def _weak_secrets(settings: Settings, services: Iterable[Service]) -> Iterable[str]:
    needed = {"jwt_secret": True, "jwt_secret_previous": False, "node_registration_psk": "control-plane" in services}
    for name, must in needed.items():
        secret: SecretStr | None = getattr(settings, name)
        if secret is None and must:
            yield f"{name.upper()}: is not set; make one with `openssl rand -base64 33`"
        elif secret is not None and (weak := weakness(secret.get_secret_value())):
            yield f"{name.upper()}: {weak}; make one with `openssl rand -base64 33`, or set CYNODE_DEVELOPMENT=1"
    if settings.jwt_secret is not None and settings.jwt_secret == settings.node_registration_psk:
        yield "NODE_REGISTRATION_PSK: must not be the same as JWT_SECRET"


def require_sound(settings: Settings, services: Iterable[Service]) -> None:
    faults = find_faults(settings, tuple(services))
    if faults:
        raise BadSettings(faults)


def describe(settings: Settings) -> list[tuple[str, str]]:
    """Every setting and what is in force, for `cynode config check`; no secret is among it."""
    return [(name.upper(), _shown(name, getattr(settings, name))) for name in Settings.model_fields]


def _shown(name: str, value: Any) -> str:
    if value is None or value == ():
        return "–"
    if isinstance(value, SecretStr):
        return f"set ({len(value.get_secret_value().encode())} bytes)"
    if name == "database_url":
        return mask_url(value)
    if isinstance(value, float):
        return show_duration(value)
    return (
        ", ".join(map(str, value))
        if isinstance(value, tuple)
        else str(value).lower()
        if value in (True, False)
        else str(value)
    )


def default_state_dir() -> Path:
    """Where `cynode up` keeps everything. Root's own home is closed to PostgreSQL's account, hence another place."""
    base = os.environ.get("XDG_STATE_HOME")
    if base:
        return Path(base) / "cynode"
    return Path("/var/lib/cynode") if os.geteuid() == 0 else Path.home() / ".local" / "state" / "cynode"
