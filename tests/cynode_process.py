"""The real `cynode` command as a process, with a home of its own."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CYNODE = Path(sys.executable).with_name("cynode")
SECONDS = 60


@dataclass(frozen=True)
class Done:
    code: int
    out: bytes
    err: str


@dataclass(frozen=True)
class Cynode:
    """`token`: as if by CYNODE_TOKEN; else sessions are kept below `home`."""

    home: Path
    url: str
    token: str | None = "tok"

    @property
    def config(self) -> Path:
        return self.home / "config" / "cynode" / "config.yaml"

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        own = {"HOME": str(self.home), "XDG_CONFIG_HOME": str(self.home / "config"), "CYNODE_GATEWAY_URL": self.url}
        return kept | own | ({"CYNODE_TOKEN": self.token} if self.token else {})

    def run(self, *words: str, stdin: bytes = b"", **environment: str) -> Done:
        env = self.environment | environment
        done = subprocess.run([CYNODE, *words], env=env, input=stdin, capture_output=True, timeout=SECONDS, check=False)
        return Done(done.returncode, done.stdout, done.stderr.decode())

    def start(self, *words: str, **more: Any) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [CYNODE, *words], env=self.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more,
        )  # fmt: skip
