"""An image of a few folders and links, in which the host's own programs are shown: what a trial job runs in."""

import io
import tarfile
from pathlib import Path

from node_agent.sandbox.host import HostTree

TRIAL_IMAGE = "localhost/cynode-trial:1"
_FOLDERS = ("dev", "etc", "job", "proc", "run", "sys", "var", "workspace")


def write_archive(path: Path, tree: HostTree) -> None:
    with tarfile.open(path, "w") as tar:
        for name in (*_FOLDERS, *(bind.lstrip("/") for bind in tree.binds)):
            tar.addfile(_entry(name, tarfile.DIRTYPE, 0o755), io.BytesIO())
        tar.addfile(_entry("tmp", tarfile.DIRTYPE, 0o1777), io.BytesIO())
        for target, name in tree.links:
            link = _entry(name.lstrip("/"), tarfile.SYMTYPE, 0o777)
            link.linkname = target
            tar.addfile(link)


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type = kind
    entry.mode = mode
    return entry
