# `make demo` and `make test` do everything on a fresh machine; `make check` is the quick part of `make test`.
PYTHON ?= python3
BIN := .venv/bin
# Where it is set, every process compiles torch, ray and mlflow anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo check quick-tests test test-long chaos audit lint setup clean

setup: .venv/.installed

# uv installs the rest in parallel, which makes the difference between half a minute and several.
.venv/.installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --requirement requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

demo: setup
	$(BIN)/drive-sweep run digits

# Format, lint, types, and the tests that start neither a process nor a server.
check: setup
	$(MAKE) --no-print-directory --jobs 2 --output-sync=target lint quick-tests

quick-tests: setup
	$(BIN)/pytest --numprocesses 2 --dist loadfile -m "not process and not server and not ray and not slow"

test: setup lint
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# The tests that `test` skips because they take most of a minute each.
test-long: setup
	DRIVE_SWEEP_LONG=1 $(BIN)/pytest --numprocesses 2 --dist load -m long

# Rounds of a small sweep under random faults; tests/chaos says what must hold afterwards.
chaos: setup
	$(BIN)/python -m tests.chaos --rounds 200

# The pinned packages against published advisories; says so where no source of them can be reached.
audit: setup
	$(BIN)/python -m tests.audit

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
