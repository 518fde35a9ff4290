"""Which parts of the host's file tree a sandbox without an image needs to run the host's programs."""

from dataclasses import dataclass
from pathlib import Path

_NAMES = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


@dataclass(frozen=True)
class HostTree:
    binds: tuple[str, ...]
    """Shown read-only at the same place."""
    links: tuple[tuple[str, str], ...]
    """(target, name) of the links beside them: /bin is usually one into /usr."""


def host_tree(root: Path = Path("/")) -> HostTree:
    binds = ["/usr"]
    links = []
    for name in _NAMES:
        path = root / name
        if path.is_symlink():
            links.append((str(path.readlink()), f"/{name}"))
        elif path.is_dir():
            binds.append(f"/{name}")
    if (root / "nix/store").is_dir():
        binds.append("/nix/store")
    return HostTree(tuple(binds), tuple(links))
