"""Settings come from a file, the environment and the caller, in this order; what is unsafe or wrong is named."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config import BadSettings, Settings, describe, find_faults, load_settings
from orchestrator.config_values import mask_url, parse_duration, show_duration

STRONG = "0123456789abcdefghijklmnopqrstuvwxyz"
OTHER = STRONG[::-1]
SOUND = {"database_url": "postgresql://u:p@h/d", "jwt_secret": STRONG, "node_registration_psk": OTHER}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("15m", 900),
        ("168h", 604800),
        ("1.5h", 5400),
        ("1h30m", 5400),
        ("250ms", 0.25),
        ("7", 7),
        (0.5, 0.5),
    ],
)
def test_durations(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "-1", "0", "1x", "1 h", "nan", "inf", "1h foo", "99999999d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@given(st.integers(1, 10**8))
def test_a_shown_duration_reads_back(seconds: int) -> None:
    assert parse_duration(show_duration(float(seconds))) == pytest.approx(seconds, rel=1e-5)


def test_sound_settings_have_no_faults() -> None:
    assert find_faults(load_settings(**SOUND), ["user-gateway", "control-plane"]) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"database_url": None}, "DATABASE_URL"),
        ({"jwt_secret": None}, "JWT_SECRET"),
        ({"jwt_secret": "short"}, "JWT_SECRET"),
        ({"jwt_secret": "changeme-changeme-changeme-changeme"}, "JWT_SECRET"),
        ({"jwt_secret": "a" * 40}, "JWT_SECRET"),
        ({"jwt_secret_previous": "short"}, "JWT_SECRET_PREVIOUS"),
        ({"node_registration_psk": None}, "NODE_REGISTRATION_PSK"),
        ({"node_registration_psk": STRONG}, "NODE_REGISTRATION_PSK"),
        ({"node_lease_seconds": "29s"}, "NODE_LEASE_SECONDS"),
    ],
)
def test_a_fault_names_its_setting(change: dict[str, str | None], named: str) -> None:
    faults = find_faults(load_settings(**SOUND | change), ["control-plane"])
    assert [fault.split(":")[0] for fault in faults] == [named]


def test_only_the_control_plane_needs_the_psk() -> None:
    assert find_faults(load_settings(**SOUND | {"node_registration_psk": None}), ["user-gateway"]) == []


def test_development_takes_weak_secrets_but_not_a_short_lease() -> None:
    weak = SOUND | {"cynode_development": True, "jwt_secret": "x", "node_registration_psk": None}
    assert find_faults(load_settings(**weak), ["control-plane"]) == []
    assert find_faults(load_settings(**weak, node_lease_seconds=1), ["control-plane"]) != []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("database_url", "sqlite:///x"),
        ("user_gateway_listen_addr", "12080"),
        ("user_gateway_listen_addr", "::1:12080"),
        ("orchestrator_public_url", "example.org"),
        ("trusted_proxies", "10.0.0.0/99"),
        ("shutdown_jobs", "maybe"),
        ("max_request_body_mb", "much"),
        ("no_such_thing", "1"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: str) -> None:
    with pytest.raises(BadSettings, match=f"^{name.upper()}: "):
        load_settings(**{name: value})


def test_no_secret_is_described() -> None:
    settings = load_settings(
        **SOUND | {"database_url": "postgresql://u:hush@h/d?password=hush"}, bootstrap_admin_password="hush"
    )
    shown = str(describe(settings)) + repr(settings)
    assert "hush" not in str(describe(settings))
    assert STRONG not in shown
    assert len(describe(settings)) == len(Settings.model_fields)


def test_masking_keeps_what_is_no_secret() -> None:
    assert mask_url("postgresql://u:p@h:5/d?host=/run") == "postgresql://u:…@h:5/d?host=/run"
    assert mask_url("postgresql://u@h/d") == "postgresql://u@h/d"


def test_the_caller_beats_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('job_max_attempts = 4\ndatabase_pool_size = 4\nlog_level = "debug"\nnode_slug = "of-the-agent"\n')
    code = (
        "from pathlib import Path; from orchestrator.config import load_settings as load;"
        f"s = load(Path({str(file)!r}), job_max_attempts=6);"
        "print(s.job_max_attempts, s.database_pool_size, s.log_level, s.trusted_proxies)"
    )
    env = os.environ | {"JOB_MAX_ATTEMPTS": "5", "DATABASE_POOL_SIZE": "5", "TRUSTED_PROXIES": "10.0.0.1,::1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("6 5 debug (IPv4Network('10.0.0.1/32'), IPv6Network('::1/128'))")


@pytest.mark.parametrize("text", ["job_max_attempts = ", "jwt_sekret = 'x'", "job_max_attempts = 'many'"])
def test_a_bad_file_is_a_clear_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "c.toml"
    file.write_text(text)
    with pytest.raises(BadSettings):
        load_settings(file)
