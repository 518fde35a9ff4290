"""The node's settings: defaults, the file, and an error that names what is wrong."""

from pathlib import Path

import pytest

from node_agent.config import load
from node_agent.settings import BadSetting, seconds


def test_defaults_are_those_of_the_contract() -> None:
    config = load({"HOME": "/home/a", "XDG_STATE_HOME": "/state"})
    assert config.orchestrator_urls == ("http://localhost:12082",)
    assert config.state_dir == Path("/state/cynode-node")
    assert config.slots >= 1
    assert (config.prefetch, config.runtimes, config.allow_process, config.allow_noop) == (0, None, False, False)
    assert config.psk is None


def test_everything_can_be_set(tmp_path: Path) -> None:
    (tmp_path / "psk").write_text(" secret \n")
    config = load(
        {
            "ORCHESTRATOR_URL": "https://a:1/, http://b:2/base",
            "NODE_SLUG": "n-1",
            "NODE_LABELS": "zone=a, disk=ssd",
            "NODE_SLOTS": "3",
            "NODE_PREFETCH": "5",
            "NODE_RUNTIME": "podman,noop",
            "NODE_PSK_FILE": str(tmp_path / "psk"),
            "NODE_ALLOW_NOOP": "true",
            "NODE_PODMAN_ARGS": "--storage-driver vfs",
            "NODE_SPOOL_LIMIT_MB": "2",
        }
    )
    assert config.orchestrator_urls == ("https://a:1", "http://b:2/base")
    assert config.labels == {"zone": "a", "disk": "ssd"}
    assert (config.slots, config.prefetch) == (3, 5)
    assert config.runtimes == {"podman", "noop"}
    assert config.psk == "secret"
    assert "secret" not in repr(config)
    assert config.podman_args == ("--storage-driver", "vfs")
    assert config.spool_limit_bytes == 2 << 20


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "node.toml",
            'node_slots = 4\nnode_labels = {zone = "b"}\n[limits]\nimages = ["alpine*"]\nnetwork = "none"\n'
            'memory_mb = 512\nmax_timeout = "15m"\n',
        ),
        (
            "node.yaml",
            "node_slots: 4\nnode_labels: {zone: b}\nlimits:\n  images: ['alpine*']\n  network: none\n"
            "  memory_mb: 512\n  max_timeout: 15m\n",
        ),
    ],
)
def test_a_file_gives_settings_and_stricter_limits_and_the_environment_wins(
    tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text)
    config = load({"NODE_CONFIG_FILE": str(tmp_path / name), "NODE_SLUG": "n1"})
    assert config.slots == 4
    assert config.labels == {"zone": "b"}
    assert config.limits.images == ("alpine*",)
    assert (config.limits.network, config.limits.memory_mb, config.limits.max_timeout_seconds) == (False, 512, 900)
    assert load({"NODE_CONFIG_FILE": str(tmp_path / name), "NODE_SLOTS": "7"}).slots == 7


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"ORCHESTRATOR_URL": "localhost:12082"}, "ORCHESTRATOR_URL"),
        ({"ORCHESTRATOR_URL": ","}, "ORCHESTRATOR_URL"),
        ({"NODE_SLUG": "A B"}, "NODE_SLUG"),
        ({"NODE_LABELS": "zone"}, "NODE_LABELS"),
        ({"NODE_SLOTS": "0"}, "NODE_SLOTS"),
        ({"NODE_SLOTS": "1000", "NODE_PREFETCH": "4000"}, "NODE_PREFETCH"),
        ({"NODE_RUNTIME": "wasm"}, "NODE_RUNTIME"),
        ({"NODE_ALLOW_PROCESS": "maybe"}, "NODE_ALLOW_PROCESS"),
        ({"NODE_PSK_FILE": "/nowhere"}, "NODE_PSK_FILE"),
        ({"NODE_CONFIG_FILE": "/nowhere.toml"}, "/nowhere.toml"),
    ],
)
def test_what_is_wrong_is_named(settings: dict[str, str], named: str) -> None:
    with pytest.raises(BadSetting, match=named):
        load(settings)


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("a.toml", "slots = 4", "unknown setting 'slots'"),
        ("a.toml", "[limits]\nmemory = 3", "limits.memory"),
        ("a.toml", "[limits]\nmax_timeout = 'soon'", "limits.max_timeout"),
        ("a.toml", "x = [", "a.toml"),
        ("a.yaml", "x: [", "a.yaml"),
        ("a.yaml", "- 1", "a.yaml"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, name: str, text: str, named: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BadSetting, match=named):
        load({}, tmp_path / name)


@pytest.mark.parametrize(
    ("text", "value"), [("30s", 30), ("15m", 900), ("1.5h", 5400), ("250ms", 0.25), (90, 90), ("0.5", 0.5)]
)
def test_durations(text: str | int, value: float) -> None:
    assert seconds(text) == value
