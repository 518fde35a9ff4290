"""The `cynode` command."""

import sys


def main() -> None:
    try:
        from orchestrator.cli.main import run
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
