"""Logs are data about strangers: what they supply cannot act on a terminal, and no secret is written."""

import io
import json
import subprocess
import sys

import pytest

from orchestrator.observe import escape_controls


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain – ü", "plain – ü"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202etxt", "\\u202etxt"),
        ("\ud800", "\\ud800"),
    ],
)
def test_controls_are_written_out(text: str, shown: str) -> None:
    assert escape_controls(text) == shown


def lines_of(code: str) -> list[dict[str, str]]:
    """In a process of its own: logging is set up once for a whole process."""
    head = "import logging, structlog; from orchestrator.observe import set_up_logs; set_up_logs(service='s');"
    done = subprocess.run([sys.executable, "-c", head + code], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in io.StringIO(done.stderr)]


def test_both_kinds_of_logger_write_one_json_line_with_the_context() -> None:
    first, second = lines_of(
        "structlog.contextvars.bind_contextvars(request_id='r');"
        "structlog.stdlib.get_logger('a').info('x', n=1); logging.getLogger('b').warning('y %s', 'z')"
    )
    assert (first["event"], first["n"], first["request_id"], first["service"]) == ("x", 1, "r", "s")
    assert (second["event"], second["logger"], second["request_id"]) == ("y z", "b", "r")


def test_secrets_and_controls_are_not_written() -> None:
    (line,) = lines_of("structlog.stdlib.get_logger().info('\\x1b', password='p1', node_jwt='p2', path='/\\x1b')")
    assert "p1" not in str(line)
    assert "p2" not in str(line)
    assert (line["event"], line["path"]) == ("\\x1b", "/\\x1b")
