"""The system call filter of bubblewrap's sandbox, as the bytes that `--seccomp` reads. Pure.

It denies what no job needs and what widens the way into the kernel: namespaces and mounts, modules, keys, tracing of
the kernel, raw I/O, other machines of the host (vsock), and typing into somebody's terminal. The rest is allowed.
"""

import struct
from dataclasses import dataclass
from functools import cache

_ALLOW = 0x7FFF0000
_KILL = 0x80000000
_EPERM = 0x00050000 | 1
_ENOSYS = 0x00050000 | 38
_EAFNOSUPPORT = 0x00050000 | 97

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _ARGUMENT_0, _ARGUMENT_1 = 0, 4, 16, 24

_CLONE_NEWUSER = 0x10000000
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_ALLOWED_FAMILIES = (1, 2, 10, 16)  # unix, inet, inet6, netlink

# Calls with one number on every architecture since Linux 5.0.
_COMMON_UNKNOWN = {
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "clone3": 435,  # its flags lie in memory, where a filter cannot look; libc falls back to clone
    "mount_setattr": 442,
    "quotactl_fd": 443,
}


@dataclass(frozen=True)
class _Machine:
    audit: int
    clone: int
    ioctl: int
    socket: int
    denied: dict[str, int]
    foreign_from: int | None = None
    """Numbers from here on are of another calling convention (x32)."""


_MACHINES = {
    "x86_64": _Machine(
        audit=0xC000003E,
        clone=56,
        ioctl=16,
        socket=41,
        foreign_from=0x40000000,
        denied={
            "uselib": 134,
            "ustat": 136,
            "sysfs": 139,
            "vhangup": 153,
            "modify_ldt": 154,
            "pivot_root": 155,
            "_sysctl": 156,
            "adjtimex": 159,
            "chroot": 161,
            "acct": 163,
            "settimeofday": 164,
            "mount": 165,
            "umount2": 166,
            "swapon": 167,
            "swapoff": 168,
            "reboot": 169,
            "sethostname": 170,
            "setdomainname": 171,
            "iopl": 172,
            "ioperm": 173,
            "create_module": 174,
            "init_module": 175,
            "delete_module": 176,
            "get_kernel_syms": 177,
            "query_module": 178,
            "quotactl": 179,
            "nfsservctl": 180,
            "syslog": 103,
            "lookup_dcookie": 212,
            "clock_settime": 227,
            "kexec_load": 246,
            "add_key": 248,
            "request_key": 249,
            "keyctl": 250,
            "migrate_pages": 256,
            "unshare": 272,
            "move_pages": 279,
            "perf_event_open": 298,
            "fanotify_init": 300,
            "name_to_handle_at": 303,
            "open_by_handle_at": 304,
            "clock_adjtime": 305,
            "setns": 308,
            "kcmp": 312,
            "finit_module": 313,
            "kexec_file_load": 320,
            "bpf": 321,
            "userfaultfd": 323,
        },
    ),
    "aarch64": _Machine(
        audit=0xC00000B7,
        clone=220,
        ioctl=29,
        socket=198,
        denied={
            "lookup_dcookie": 18,
            "umount2": 39,
            "mount": 40,
            "pivot_root": 41,
            "nfsservctl": 42,
            "chroot": 51,
            "vhangup": 58,
            "quotactl": 60,
            "acct": 89,
            "unshare": 97,
            "kexec_load": 104,
            "init_module": 105,
            "delete_module": 106,
            "clock_settime": 112,
            "syslog": 116,
            "reboot": 142,
            "sethostname": 161,
            "setdomainname": 162,
            "settimeofday": 170,
            "adjtimex": 171,
            "add_key": 217,
            "request_key": 218,
            "keyctl": 219,
            "swapon": 224,
            "swapoff": 225,
            "migrate_pages": 238,
            "move_pages": 239,
            "perf_event_open": 241,
            "fanotify_init": 262,
            "name_to_handle_at": 264,
            "open_by_handle_at": 265,
            "clock_adjtime": 266,
            "setns": 268,
            "kcmp": 272,
            "finit_module": 273,
            "bpf": 280,
            "userfaultfd": 282,
            "kexec_file_load": 294,
        },
    ),
}


@cache
def filter_for(machine: str) -> bytes | None:
    """The filter for `platform.machine()`, or None where we have none."""
    known = _MACHINES.get(machine)
    return None if known is None else b"".join(_program(known))


def _program(machine: _Machine) -> list[bytes]:
    out = [_load(_ARCH), *_unless_equal(machine.audit, _KILL), _load(_NUMBER)]
    if machine.foreign_from is not None:
        out += _if_at_least(machine.foreign_from, _ENOSYS)
    for number in _COMMON_UNKNOWN.values():
        out += _if_equal(number, _ENOSYS)
    for number in machine.denied.values():
        out += _if_equal(number, _EPERM)
    out += _only_for(machine.clone, [_load(_ARGUMENT_0), *_if_set(_CLONE_NEWUSER, _EPERM)])
    out += _only_for(machine.ioctl, [_load(_ARGUMENT_1), *_if_equal(_TIOCSTI, _EPERM), *_if_equal(_TIOCLINUX, _EPERM)])
    families = [
        _instruction(_JUMP_EQUAL, family, len(_ALLOWED_FAMILIES) - i) for i, family in enumerate(_ALLOWED_FAMILIES)
    ]
    out += _only_for(machine.socket, [_load(_ARGUMENT_0), *families, _return(_EAFNOSUPPORT)])
    return [*out, _return(_ALLOW)]


def _only_for(number: int, body: list[bytes]) -> list[bytes]:
    """The body for this call, which it ends; other calls go on behind it with the number loaded."""
    ended = [*body, _return(_ALLOW)]
    return [_instruction(_JUMP_EQUAL, number, 0, len(ended)), *ended]


def _if_equal(value: int, verdict: int) -> list[bytes]:
    return [_instruction(_JUMP_EQUAL, value, 0, 1), _return(verdict)]


def _unless_equal(value: int, verdict: int) -> list[bytes]:
    return [_instruction(_JUMP_EQUAL, value, 1, 0), _return(verdict)]


def _if_at_least(value: int, verdict: int) -> list[bytes]:
    return [_instruction(_JUMP_AT_LEAST, value, 0, 1), _return(verdict)]


def _if_set(bits: int, verdict: int) -> list[bytes]:
    return [_instruction(_JUMP_SET, bits, 0, 1), _return(verdict)]


def _load(offset: int) -> bytes:
    return _instruction(_LOAD, offset)


def _return(verdict: int) -> bytes:
    return _instruction(_RETURN, verdict)


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)
