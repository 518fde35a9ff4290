#!/usr/bin/env python3
"""Makes .venv with the locked dependencies and this checkout in it. Any python3 can run it, to be told what it lacks.

A stamp of all that decides what .venv must hold makes the second run quick. Two runs at once wait for each other.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "stamp"
PYTHON = VENV / "bin" / "python"
DECIDES = "requirements.lock requirements-uv.lock pyproject.toml node_link/pyproject.toml scripts/setup.py"
OLDEST = (3, 11)


def main():
    use_a_fitting_python()
    (ROOT / "build").mkdir(exist_ok=True)
    with (ROOT / "build" / "setup.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = fingerprint()
        if STAMP.exists() and STAMP.read_text() == wanted and runs(PYTHON):
            return
        if not runs(PYTHON):
            make_venv()
        install()
        STAMP.write_text(wanted)


def use_a_fitting_python():
    found = f"{sys.executable} is {sys.version_info[0]}.{sys.version_info[1]}"
    if sys.version_info < OLDEST:
        for name in ("python3.13", "python3.12", "python3.11"):
            if shutil.which(name):
                os.execvp(name, [name, str(ROOT / "scripts" / "setup.py")])
        sys.exit(f"cynode needs Python 3.11 or later, and {found}.\nOr name another: make PYTHON=/path/to/python3.12")
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        sys.exit(
            f"{sys.executable} lacks its venv module. On Debian and Ubuntu: apt-get install python3-venv\n"
            "Or name another Python: make PYTHON=/path/to/python3"
        )


def fingerprint():
    """A folder that was moved, or another Python, makes another .venv."""
    files = [(ROOT / name).read_text(encoding="utf-8") for name in DECIDES.split()]
    return hashlib.sha256("\0".join([str(ROOT), sys.executable, sys.version, *files]).encode()).hexdigest()


def runs(python):
    """Whether it is there, new enough, and still where its .venv was made."""
    check = f"import sys; sys.exit(sys.version_info < {OLDEST} or sys.prefix != sys.argv[1])"
    try:
        return subprocess.run([python, "-c", check, VENV], stderr=subprocess.DEVNULL, check=False).returncode == 0
    except OSError:
        return False


def make_venv():
    tell(f"Making .venv with Python {sys.version_info[0]}.{sys.version_info[1]} …")
    shutil.rmtree(VENV, ignore_errors=True)
    run([sys.executable, "-m", "venv", VENV])


def install():
    tell("Installing the locked dependencies …")
    run([*pip(), "install", "--root-user-action=ignore", "--require-hashes", "-r", "requirements-uv.lock"])
    for what in (
        ["--require-hashes", "-r", "requirements.lock"],
        ["--no-deps", "--no-build-isolation", "-e", "./node_link", "-e", "."],
    ):
        if not succeeds([*uv(), "install", "--python", PYTHON, *what]):
            tell("Once more with pip, which knows more kinds of indexes and proxies …")
            run([*pip(), "install", "--root-user-action=ignore", *what])


def pip():
    return [PYTHON, "-m", "pip", "-q", "--disable-pip-version-check", "--no-input"]


def uv():
    cache = [] if os.access(Path("~").expanduser(), os.W_OK) else ["--no-cache"]
    return [VENV / "bin" / "uv", "-q", *cache, "pip"]


def run(command):
    if not succeeds(command):
        sys.exit("The set-up failed at: " + " ".join(map(str, command)))


def succeeds(command):
    # Whatever environment this was called from must not lead elsewhere: one checkout, one .venv.
    own = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")}
    settings = {"UV_PYTHON_DOWNLOADS": "never", "UV_LINK_MODE": "copy"}
    return (
        subprocess.run([str(part) for part in command], cwd=ROOT, env={**own, **settings}, check=False).returncode == 0
    )


def tell(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
