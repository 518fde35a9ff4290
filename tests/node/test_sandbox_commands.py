"""Lines of commands, through a real shell."""

import shlex
import subprocess
from uuid import uuid4

from hypothesis import given, settings
from hypothesis import strategies as st

from node_agent.sandbox.spec import JobToRun, program_of

ONE_LINE = st.characters(codec="utf-8", exclude_characters="\0\n\r")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(ONE_LINE, max_size=30), min_size=1, max_size=4))
def test_each_command_reaches_its_shell_as_it_is(lines: list[str]) -> None:
    """A command is one line, so what it prints is quoted on it; dash's own here-documents lose bytes in a subshell."""
    said = [f"printf '%s\\n' {shlex.quote(line)}" for line in lines]
    job = JobToRun(uuid4(), uuid4(), 1, uuid4(), "commands", 9, commands=tuple(said))
    done = subprocess.run(["/bin/sh"], input=program_of(job).content, capture_output=True)
    assert done.stdout.decode() == "".join(f"{line}\n" for line in lines)
