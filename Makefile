# make demo   everything from nothing: sets up, starts, runs two tasks, stops
# make test   sets up and runs the tests            (ARGS="-k link" for some of them)
# make bench  what it costs, one table   (ROWS="idle_dispatch start" for some of it)
# make chaos  kills, stops, cuts and fills while jobs run, then judges   (SEED=7 JOBS=500; RUNS=20: seeds in a row)
# make chaos-check   plants faults into the code one by one, and shows that such a run finds each
# make crash  a kill -9 at every named point, and frozen processes; minutes long, in .ci/run beside `make test`
# make lint   format, linters, types
# make lock   renews the locked dependencies from the two pyproject.toml

PYTHON ?= python3
ARGS ?=
SEED ?=
JOBS ?= 60
RUNS ?= 1
SOURCES = src node_link/src tests scripts bench chaos

.PHONY: setup demo test bench chaos chaos-check lint format lock crash

setup:
	@command -v "$(PYTHON)" >/dev/null || { echo "There is no $(PYTHON). cynode needs Python 3.11 or later."; exit 1; }
	@"$(PYTHON)" scripts/setup.py

demo: setup
	@.venv/bin/python scripts/demo.py

test: setup
	.venv/bin/python -m pytest -n 2 -m "not crash" $(ARGS)

crash: setup
	.venv/bin/python -m pytest -n 2 -m crash $(ARGS)

bench: setup
	.venv/bin/python -m bench $(ROWS)

chaos: setup
	@.venv/bin/python -m chaos $(if $(SEED),--seed $(SEED)) --jobs $(JOBS) --runs $(RUNS)

chaos-check: setup
	@.venv/bin/python -m chaos check

lint: setup
	.venv/bin/python -m ruff format --check $(SOURCES)
	.venv/bin/python -m ruff check $(SOURCES)
	@find src node_link/src -name "*.py" -print0 | xargs -0 .venv/bin/python -m flake8_async --enable=ASYNC102
	.venv/bin/python -m mypy

format: setup
	.venv/bin/python -m ruff format $(SOURCES)
	.venv/bin/python -m ruff check --fix $(SOURCES)

# The lock names no address: only versions and hashes. cynode-node is this checkout's own, so it is left out.
lock: setup
	@mkdir -p build/lock
	@grep -v '"cynode-node"' pyproject.toml > build/lock/pyproject.toml
	.venv/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
		build/lock/pyproject.toml node_link/pyproject.toml --group build/lock/pyproject.toml:dev -o requirements.lock
	@echo uv > build/lock/uv.in
	.venv/bin/uv pip compile --quiet --upgrade --universal --generate-hashes --no-annotate --no-header build/lock/uv.in \
		-o requirements-uv.lock
	@! grep -n '://' requirements.lock requirements-uv.lock
