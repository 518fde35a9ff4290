"""A program of a few hundred bytes that becomes a job's user, sets its limit of processes, and then is the job.

subprocess can change the user by itself, but then it forks, which for a process of the agent's size costs several times
as much as all else at a start: every page table is copied. Without a change of user it uses vfork. So it starts this
program, from memory, which changes nobody's user but its own. `starter.s` is its source.
"""

import fcntl
import os
import platform
import struct
import subprocess
from collections.abc import Sequence

_X86_64 = bytes.fromhex(
    "488b04244c8d6c24084d8d74c508498b7508e8b400000089c7b8030000000f05498b7510e8a200000089c3498b7518e897000000"
    "85c0741550504889e6bf06000000b8a00000000f0585c0757231ff31f6b8740000000f0585c0756389df89de89dab8770000000f"
    "0585c0755289df89de89dab8750000000f0585c07541498b7d20498d75204c89f2b83b0000000f05488d3d4900000049897d0848"
    "8d054600000049894510488d053e00000049894518498d75084c89f2b83b0000000f05bf7e000000b83c0000000f0531c00fb60e"
    "48ffc683e93078076bc00a01c8ebeec32f62696e2f7368002d6300657865632022243022202224402200"
)
_BASE = 0x400000
_HEADERS = 64 + 56


class Starter:
    def __init__(self, fd: int) -> None:
        self.fd = fd
        """Must be passed on; the program closes it."""
        self.path = f"/proc/self/fd/{fd}"

    def argv(self, command: Sequence[str], uid: int, most_processes: int | None) -> list[str]:
        """What to start instead of the command. If that cannot be executed a shell says so, with its exit code."""
        return ["cynode-start", str(self.fd), str(uid), str(most_processes or 0), *command]


def open_starter() -> Starter | None:
    """None where it cannot be had: an agent that is not root, another machine, memory that may not be executed."""
    if os.geteuid() != 0 or platform.machine() != "x86_64":
        return None
    try:
        starter = Starter(_in_memory(_elf(_X86_64)))
        tried = subprocess.run(
            starter.argv(("/bin/sh", "-c", ":"), 0, None), executable=starter.path, pass_fds=(starter.fd,), check=False
        )
    except OSError:
        return None
    return starter if tried.returncode == 0 else None


def _in_memory(program: bytes) -> int:
    """Opened for reading only: what is open for writing cannot be executed."""
    writing = os.memfd_create("cynode-start", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.write(writing, program)
        fcntl.fcntl(writing, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
        return os.open(f"/proc/self/fd/{writing}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writing)


def _elf(code: bytes) -> bytes:
    """One segment that is loaded and entered behind the headers."""
    size = _HEADERS + len(code)
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return header + struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 4096) + code
