"""What a process inherits when it is started: another user, and a limit of processes, from its first instruction on."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

_CAP_SYS_RESOURCE = 1 << 24


def as_user(uid: int | None) -> dict[str, Any]:
    """What subprocess is told to start something as another user; None changes nothing."""
    return {} if uid is None else {"user": uid, "group": uid, "extra_groups": []}


@contextmanager
def process_limit(most: int | None) -> Iterator[None]:
    """What is started has at most so many processes of its user; it binds every user but root.

    Where `words_for_limit` has something to say, a shell must say it: until then the job could raise the limit again.
    """
    if most is None:
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_NPROC)
    hard = _lower(most, before[1]) if may_raise_limits() else before[1]
    resource.setrlimit(resource.RLIMIT_NPROC, (_lower(most, before[0]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NPROC, before)


def words_for_limit(most: int | None) -> str:
    """The first words of a shell that makes the limit final; empty when what is started has inherited it so."""
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    if most is None or may_raise_limits() or (hard != resource.RLIM_INFINITY and hard <= most):
        return ""
    return f"{{ ulimit -p {most} 2>/dev/null || ulimit -u {most}; }} && "  # dash and busybox, or bash


def keep_process_limit(most: int | None) -> int | None:
    """Once, at the agent's start: where it is root and could not raise the limit again, its own becomes final, so that
    no job needs a shell for it. Root is not bound by it, but no job can have more. Returns it where that is so.
    """
    if most is None or os.geteuid() != 0 or may_raise_limits() or not _in_first_namespace():
        return None
    final = _lower(most, resource.getrlimit(resource.RLIMIT_NPROC)[1])
    resource.setrlimit(resource.RLIMIT_NPROC, (final, final))
    return final


def _lower(most: int, limit: int) -> int:
    return most if limit == resource.RLIM_INFINITY else min(most, limit)


@cache
def may_raise_limits() -> bool:
    """Whether this process could have a hard limit back that it lowered."""
    capabilities = int(Path("/proc/self/status").read_text().partition("\nCapEff:")[2].split(maxsplit=1)[0], 16)
    return _in_first_namespace() and bool(capabilities & _CAP_SYS_RESOURCE)


def _in_first_namespace() -> bool:
    return Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]
