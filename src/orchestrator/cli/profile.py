"""Which gateway is used, and who one is there: `config.yaml`, and the sessions beside it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from orchestrator.cli.failures import Exit, Failure
from orchestrator.cli.files import locked, write_private

DEFAULT_GATEWAY = "http://127.0.0.1:12080"


@dataclass(frozen=True, slots=True)
class Session:
    """What a login gave. It belongs to one gateway and is never sent to another."""

    access_token: str
    refresh_token: str


def default_config() -> Path:
    from platformdirs.unix import Unix  # XDG everywhere, as the contract says

    return Unix("cynode", appauthor=False).user_config_path / "config.yaml"


def gateway_url(text: str) -> str:
    """The address in one form, so that a session is found again."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise Failure(Exit.USAGE, f"the gateway's address must look like http://host:12080, not {text!r}")
    return text.rstrip("/")


def read_config(file: Path) -> dict[str, Any]:
    """Unknown keys are welcome: another version may know them."""
    import yaml

    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Failure(Exit.USAGE, f"{file} is not YAML: {_first_line(error)}") from error
    except OSError as error:
        raise Failure(Exit.USAGE, f"cannot read {file}: {error.strerror}") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise Failure(Exit.USAGE, f"{file} must hold `name: value` lines, such as `gateway_url: {DEFAULT_GATEWAY}`")
    return found


def configured_gateway(file: Path) -> str | None:
    url = read_config(file).get("gateway_url")
    if url is None or isinstance(url, str):
        return url
    raise Failure(Exit.USAGE, f"gateway_url in {file} must be text")


def remember_gateway(file: Path, url: str) -> None:
    with locked(file):
        config = read_config(file)
        if config.get("gateway_url", DEFAULT_GATEWAY) == url:
            return  # a file that is right keeps its comments
        import yaml

        write_private(file, yaml.safe_dump(config | {"gateway_url": url}, sort_keys=False, allow_unicode=True))


class Sessions:
    """The sessions of one config file, by gateway. Changes are made under a lock, after reading the file again."""

    def __init__(self, config: Path) -> None:
        self._file = config.with_name(f"{config.stem}.tokens.json")

    def get(self, gateway: str) -> Session | None:
        found = self._read().get(gateway)
        return Session(found["access_token"], found["refresh_token"]) if found else None

    def set(self, gateway: str, session: Session | None) -> None:
        """To be called while `alone`."""
        known = self._read()
        known.pop(gateway, None)
        if session:
            known[gateway] = {"access_token": session.access_token, "refresh_token": session.refresh_token}
        write_private(self._file, json.dumps(known, indent=2) + "\n")

    @contextmanager
    def alone(self) -> Iterator[None]:
        with locked(self._file):
            yield

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
            if isinstance(found, dict) and all(_is_session(item) for item in found.values()):
                return found
        except FileNotFoundError:
            return {}
        except ValueError:
            pass
        except OSError as error:
            raise Failure(Exit.USAGE, f"cannot read {self._file}: {error.strerror}") from error
        raise Failure(Exit.USAGE, f"{self._file} is damaged: remove it and run `cynode login`")


def _is_session(item: object) -> bool:
    return isinstance(item, dict) and all(isinstance(item.get(key), str) for key in ("access_token", "refresh_token"))


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
