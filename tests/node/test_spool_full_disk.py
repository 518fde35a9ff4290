"""A disk that is really full: new work is refused, output waits, and every end that was promised is still written."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("full_disk.py")


def test_on_a_full_disk_ends_are_kept_and_nothing_else_is_taken(tmp_path: Path) -> None:
    command = f'mount -t tmpfs -o size=2m none "{tmp_path}" && exec "{sys.executable}" "{SCRIPT}" "{tmp_path}"'
    done = subprocess.run(["unshare", "-rm", "sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "refused": 40,
        "output_blocked": True,
        "output_after_room": True,
        "ends": 20,
        "unfinished": 0,
        "sent": 20,
    }
