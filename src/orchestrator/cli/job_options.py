"""From words on a command line to the body of `POST /v1/tasks`. Only `read_script` does I/O."""

import errno
import os
import re
import shlex
import stat
import sys
from pathlib import Path
from typing import Any

import click

from orchestrator.cli.failures import Exit, Failure

MAX_SCRIPT = 256 * 1024
MAX_COMMANDS = 64 * 1024
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
SIZES = {"": 1, "m": 1, "mb": 1, "mi": 1, "g": 1024, "gb": 1024, "gi": 1024}


def duration(text: str) -> int:
    found = re.fullmatch(r"(\d+)([smh]?)", text)
    if not found or int(found[1]) == 0:
        raise click.BadParameter(f"{text!r} is no time span; write 90, 90s, 15m or 2h")
    return int(found[1]) * UNITS[found[2]]


def megabytes(text: str) -> int:
    found = re.fullmatch(r"(\d+)([a-z]*)", text.lower())
    if not found or found[2] not in SIZES or int(found[1]) == 0:
        raise click.BadParameter(f"{text!r} is no size; write 512m or 2g")
    return int(found[1]) * SIZES[found[2]]


def pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.BadParameter(f"{text!r} must look like NAME=VALUE")
    return name, value


def work_of(script: str | None, commands: tuple[str, ...], words: tuple[str, ...]) -> dict[str, str]:
    """What is to run: exactly one of the three."""
    if sum(map(bool, (script, commands, words))) != 1:
        raise click.UsageError("say what to run, in one way: --script FILE, --command LINE (repeatable), or -- WORDS…")
    if script:
        return {"input_mode": "script", "prompt": _limited(read_script(script), MAX_SCRIPT, "script")}
    if commands and any("\n" in line or not line.strip() for line in commands):
        raise click.UsageError("a --command is one line, and not an empty one; use --script for more")
    text = "\n".join(commands) or shlex.join(words)
    if "\n" in text and words:  # commands are split at line ends, a quoted word must not be
        return {"input_mode": "script", "prompt": _limited(text + "\n", MAX_SCRIPT, "script")}
    return {"input_mode": "commands", "prompt": _limited(text, MAX_COMMANDS, "commands")}


def read_script(name: str) -> str:
    """The text of a plain file or, for `-`, of stdin. Symlinks are refused: they may lead to what was not meant."""
    data = sys.stdin.buffer.read(MAX_SCRIPT + 1) if name == "-" else _read_plain(Path(name))
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Failure(Exit.INVALID, f"the script is not UTF-8 text (byte {error.start})") from error


def _read_plain(file: Path) -> bytes:
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as opened:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise Failure(Exit.INVALID, f"{file} is not a plain file; `--script -` reads stdin")
            return opened.read(MAX_SCRIPT + 1)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Failure(Exit.INVALID, f"{file} is a symbolic link: name the file itself") from error
        raise Failure(Exit.INVALID, f"cannot read {file}: {error.strerror}") from error


def _limited(text: str, most: int, what: str) -> str:
    if not text.strip():
        raise Failure(Exit.INVALID, f"the {what} are empty" if what == "commands" else f"the {what} is empty")
    if len(text.encode("utf-8", "surrogatepass")) > most:
        raise Failure(Exit.INVALID, f"the {what} may have {most // 1024} KiB at most")
    return text


def job_of(options: dict[str, Any]) -> dict[str, Any]:
    """The `job` object: only what was asked for, so that the server's defaults hold."""
    job = {name: options[name] for name in ("image", "network", "max_attempts") if options.get(name) is not None}
    job |= {"env": dict(options["env"])} if options.get("env") else {}
    job |= {"timeout_seconds": options["timeout"]} if options.get("timeout") else {}
    job |= {"queue_timeout_seconds": options["queue_timeout"]} if options.get("queue_timeout") else {}
    job |= {"retry_on": list(options["retry_on"])} if options.get("retry_on") else {}
    resources = {"memory_mb": options.get("memory"), "cpus": options.get("cpus"), "pids": options.get("pids")}
    requires = {"labels": dict(options.get("require_label") or ()), "gpu": options.get("gpu") or None,
                "runtime": options.get("runtime")}  # fmt: skip
    for name, wanted in (("resources", resources), ("requires", requires)):
        filled = {key: value for key, value in wanted.items() if value}
        job |= {name: filled} if filled else {}
    return job


def body_of(work: dict[str, str], options: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = dict(work)
    job = job_of(options)
    body |= {"job": job} if job else {}
    body |= {"task_name": options["name"]} if options.get("name") else {}
    body |= {"labels": dict(options["label"])} if options.get("label") else {}
    body |= {"priority": options["priority"]} if options.get("priority") is not None else {}
    return body
