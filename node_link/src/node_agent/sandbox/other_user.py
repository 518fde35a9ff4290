"""What a process inherits when it is started: another user, and a limit of processes, from its first instruction on.

subprocess can change the user by itself, but then it forks, which for a process of the agent's size costs ten times as
much as vfork: every page table is copied, and every page written next is. So it is the calling thread that becomes the
user, for as long as the start lasts, and only its real and effective ids: by the saved one it is root again. The
system calls are made directly, since those of libc change all threads. Nobody else has such a user, so nobody
can use the moment to signal the agent, and the kernel lets no process look into it meanwhile.
"""

import ctypes
import os
import platform
import resource
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG = 1, 2
_SETGROUPS, _SETRESGID, _SETRESUID = {"x86_64": (116, 119, 117), "aarch64": (159, 149, 147)}.get(
    platform.machine(), (0, 0, 0)
)
_CAP_SYS_RESOURCE = 1 << 24
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def as_user(uid: int | None) -> Iterator[dict[str, Any]]:
    """For one start by this thread; yields what subprocess is to be told in addition. None changes nothing."""
    if uid is None:
        yield {}
    elif not _SETRESUID:
        yield {"user": uid, "group": uid, "extra_groups": []}
    else:
        parent, groups, signal_of_parent = os.getppid(), os.getgroups(), _parent_death_signal()
        _set_groups(())
        try:
            _call(_SETRESGID, uid, uid, 0)
            _call(_SETRESUID, uid, uid, 0)
            yield {}
        finally:
            _call(_SETRESUID, 0, 0, 0)
            _call(_SETRESGID, 0, 0, 0)
            _set_groups(groups)
            if signal_of_parent:  # forgotten by the kernel with the change
                _die_with(parent, signal_of_parent)


def _set_groups(groups: Sequence[int]) -> None:
    _call(_SETGROUPS, len(groups), (ctypes.c_uint32 * len(groups))(*groups))


def _call(number: int, *arguments: Any) -> None:
    told = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    if _libc.syscall(ctypes.c_long(number), *told) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _parent_death_signal() -> int:
    found = ctypes.c_int()
    _libc.prctl(_PR_GET_PDEATHSIG, ctypes.byref(found), 0, 0, 0)
    return found.value


def _die_with(parent: int, number: int) -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        signal.raise_signal(number)


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
