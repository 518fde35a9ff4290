"""A 4 MiB tmpfs in a mount namespace of its own, held open by a process that does nothing."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

MEBIBYTES = 4


@dataclass(frozen=True)
class SmallDisk:
    keeper: int
    folder: Path
    """Where the namespace has it mounted."""

    @property
    def enter(self) -> Sequence[str]:
        """What a command is started with to be in the namespace."""
        return ("nsenter", f"--mount=/proc/{self.keeper}/ns/mnt", "--")

    @property
    def outside(self) -> Path:
        """The same folder as seen from here."""
        return Path(f"/proc/{self.keeper}/root{self.folder}")

    def fill(self) -> None:
        with suppress(OSError), (self.outside / "ballast").open("wb", buffering=0) as out:
            while True:
                out.write(bytes(16 << 10))

    def empty(self) -> None:
        (self.outside / "ballast").unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    folder.mkdir()
    mount = f'mount -t tmpfs -o size={MEBIBYTES}m,mode=711 none "$0" && echo mounted && exec sleep infinity'
    keeper = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", mount, str(folder)], stdout=subprocess.PIPE
    )
    try:
        assert keeper.stdout is not None
        if keeper.stdout.readline() != b"mounted\n":
            raise RuntimeError("no tmpfs could be mounted in a namespace of its own (this needs root)")
        yield SmallDisk(keeper.pid, folder)
    finally:
        keeper.kill()
        keeper.wait()
        if keeper.stdout is not None:
            keeper.stdout.close()
