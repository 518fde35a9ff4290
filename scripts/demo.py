"""`make demo`: everything from nothing, with the commands that a person would type, each shown before it runs.

Its state lies in .demo, so that a second run is quick and your own settings are not touched.
"""

import hashlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CYNODE = Path(sys.executable).with_name("cynode")
LINES = ("echo one > note", "echo two >> note", "cat note", "uname -sm")
READY_SECONDS = 80
STOP_SECONDS = 15


def main():
    folder = own_folder()
    gateway, control = free_ports(2)
    environment = {
        **os.environ,
        "XDG_CONFIG_HOME": str(folder / "config"),
        "CYNODE_GATEWAY_URL": f"http://127.0.0.1:{gateway}",
        "PYTHONUNBUFFERED": "1",
    }
    environment.pop("CYNODE_TOKEN", None)
    with running_everything(folder / "state", gateway, control, environment):
        say(f"\n$ export CYNODE_GATEWAY_URL={environment['CYNODE_GATEWAY_URL']}")
        walk(environment, folder / "state" / "admin-password")
    say("\nThat was all. `cynode up` does the same for good; README.md goes on from here.")


def walk(environment, password):
    now = time.strftime("%H%M%S")
    cynode(environment, "login", "admin", "--password-stdin", stdin=password)
    cynode(environment, "node", "list")
    say("\nA script, in a sandbox on that node, its output as it comes:")
    cynode(environment, "task", "run", "--follow", "--name", f"hello-{now}", "--script", "scripts/hello.sh")
    say("\nA few commands, one after the other in one sandbox and folder:")
    commands = [word for line in LINES for word in ("--command", line)]
    cynode(environment, "task", "run", "--follow", "--name", f"lines-{now}", *commands)
    say("\nWhat became of them, and of the queue:")
    cynode(environment, "task", "list", "--limit", "2")
    cynode(environment, "task", "result", f"hello-{now}")
    cynode(environment, "task", "result", f"lines-{now}")
    cynode(environment, "queue")


def cynode(environment, *words, stdin=None):
    shown = " ".join(["cynode", *map(shlex.quote, words)])
    say(f"\n$ {shown}" + (f" < {shlex.quote(str(stdin))}" if stdin else ""))
    with ExitStack() as stack:
        source = stack.enter_context(stdin.open("rb")) if stdin else subprocess.DEVNULL
        done = subprocess.run([CYNODE, *words], cwd=ROOT, env=environment, stdin=source, check=False)
    if done.returncode != 0:
        raise SystemExit(f"demo: `{shown}` ended with {done.returncode}")


@contextmanager
def running_everything(state, gateway, control, environment):
    words = ["up", "--state-dir", str(state), "--gateway-listen", f"127.0.0.1:{gateway}",
             "--control-listen", f"127.0.0.1:{control}"]  # fmt: skip
    say("$ " + " ".join(["cynode", *map(shlex.quote, words)]))
    log = state.parent / "up.log"
    with log.open("wb") as errors:
        process = subprocess.Popen([CYNODE, *words], env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors)
    try:
        wait_until_ready(process, log)
        yield
    finally:
        code = stop(process)
    if code != 0:
        raise SystemExit(f"demo: `cynode up` ended with {code}; see {log}")
    say("\n`cynode up` was told to stop (Ctrl-C), and has stopped.")


def wait_until_ready(process, log):
    ready, ended = threading.Event(), threading.Event()

    def show():
        for line in process.stdout:
            text = line.decode("utf-8", "replace").rstrip()
            say(f"  up | {text}")
            if text.lower().startswith("ready"):
                ready.set()
        ended.set()
        ready.set()

    threading.Thread(target=show, daemon=True).start()
    if not ready.wait(READY_SECONDS) or ended.is_set():
        raise SystemExit(f"demo: `cynode up` did not get ready; {log} ends with:\n{log.read_text()[-3000:]}")


def stop(process):
    process.send_signal(signal.SIGINT)
    try:
        return process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return "no answer to Ctrl-C"


def own_folder():
    """.demo beside this file; for root elsewhere if others cannot enter here, since PostgreSQL never runs as root."""
    folder = ROOT / ".demo"
    if os.geteuid() == 0 and not all(parent.stat().st_mode & 0o001 for parent in (ROOT, *ROOT.parents)):
        folder = Path("/var/tmp") / f"cynode-demo-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:12]}"
    folder.mkdir(mode=0o711, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
        raise SystemExit(f"demo: {folder} belongs to somebody else: remove it")
    return folder


def free_ports(count):
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    started = time.monotonic()
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    say(f"({time.monotonic() - started:.1f} s)")
