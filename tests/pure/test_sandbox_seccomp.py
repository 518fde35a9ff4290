"""The filter of bubblewrap's sandbox, run by a small interpreter of its own language on both machines."""

import struct

import pytest

from node_agent.sandbox.seccomp import filter_for

ALLOW, KILL, EPERM, ENOSYS, NO_FAMILY = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026, 0x00050061
ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
CALLS = {
    "x86_64": {
        "read": 0,
        "clone": 56,
        "ioctl": 16,
        "socket": 41,
        "mount": 165,
        "unshare": 272,
        "bpf": 321,
        "ptrace": 101,
    },
    "aarch64": {
        "read": 63,
        "clone": 220,
        "ioctl": 29,
        "socket": 198,
        "mount": 40,
        "unshare": 97,
        "bpf": 280,
        "ptrace": 117,
    },
}


def verdict(program: bytes, arch: int, number: int, *arguments: int) -> int:
    data = struct.pack("<IIQ6Q", number, arch, 0, *(*arguments, *(0,) * (6 - len(arguments))))
    code = list(struct.iter_unpack("<HBBI", program))
    at = loaded = 0
    while True:
        operation, if_true, if_false, value = code[at]
        at += 1
        if operation == 0x06:
            return int(value)
        if operation == 0x20:
            loaded = struct.unpack_from("<I", data, value)[0]
            continue
        holds = {0x15: loaded == value, 0x35: loaded >= value, 0x45: bool(loaded & value)}[operation]
        at += if_true if holds else if_false


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_what_is_denied_and_what_is_not(machine: str) -> None:
    program = filter_for(machine)
    assert program is not None
    assert len(program) // 8 < 4096

    def judge(call: str, *arguments: int) -> int:
        return verdict(program, ARCH[machine], CALLS[machine][call], *arguments)

    assert [judge(call) for call in ("read", "ptrace", "clone")] == [ALLOW] * 3
    assert [judge(call) for call in ("mount", "unshare", "bpf")] == [EPERM] * 3
    assert (judge("clone", 0x10000000), judge("clone", 0x00010F00)) == (EPERM, ALLOW)
    assert [judge("ioctl", 0, request) for request in (0x5412, 0x541C, 0x5413)] == [EPERM, EPERM, ALLOW]
    assert [judge("socket", family) for family in (1, 2, 10, 16)] == [ALLOW] * 4
    assert [judge("socket", family) for family in (17, 38, 40)] == [NO_FAMILY] * 3
    assert [verdict(program, ARCH[machine], number) for number in (425, 435, 430)] == [ENOSYS] * 3
    assert verdict(program, 0x40000003, 0) == KILL


def test_the_other_calling_convention_of_x86_64() -> None:
    program = filter_for("x86_64")
    assert program is not None
    assert verdict(program, ARCH["x86_64"], 0x40000000 + 1) == ENOSYS


def test_a_machine_without_a_filter() -> None:
    assert filter_for("riscv64") is None
