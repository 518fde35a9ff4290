"""Notices that a runtime's program came, went or changed, without running it."""

import shutil
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("podman", "docker", "bwrap")


@dataclass(frozen=True)
class Tools:
    seen: tuple[tuple[str, str, int], ...] = ()

    @classmethod
    def look(cls) -> "Tools":
        paths = [(name, shutil.which(name)) for name in PROGRAMS]
        return cls(tuple((name, path, _changed(path)) for name, path in paths if path))


def _changed(path: str) -> int:
    try:
        return Path(path).stat().st_mtime_ns
    except OSError:
        return 0
