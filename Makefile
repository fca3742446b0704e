# Three commands: `make demo` shows the product, `make test` runs the tests, `make check` everything that reads the code.
# Each does its own set-up in .venv; PYTHON=python3.12 chooses another interpreter, ARGS goes to pytest.

SHELL := bash
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --no-input

# The stamps carry a checksum of what they were made from, so a changed lock file makes a new venv and nothing else does.
LOCKED := .venv/locked-$(shell cksum < requirements/dev.txt | tr ' ' -)
INSTALLED := .venv/installed-$(shell cksum < pyproject.toml | tr ' ' -)

# Whole files go to several processes, in the order that tests/conftest.py gives them.
PARALLEL := -n auto --dist loadfile --no-loadscope-reorder

# step(name, command): run, say how long it took, stop make at the first failure.
define step
@echo "== $(1)"; $(2) && echo "   $(1): $$SECONDS s"
endef

.PHONY: help demo test test-all check agent-test venv control-plane lock

help:
	@echo "make demo    a bad version under real HTTP traffic, undone before your eyes; Python only"
	@echo "make test    all tests but the heavy ones; those for the real control plane skip loudly until 'make control-plane' built it"
	@echo "make test-all  the heavy ones, too: the whole pipeline of the example, long statistics"
	@echo "make agent-test  the tests of examples/agent-api, with real Redis and PostgreSQL"
	@echo "make check   format, lint, types, import rules, Dockerfile, lock files"

demo: venv
	@$(BIN)/rollback-watchdog demo $(ARGS)

test: venv
	@$(BIN)/pytest $(PARALLEL) $(ARGS)

test-all: venv
	@$(BIN)/pytest $(PARALLEL) -m "heavy or not heavy" $(ARGS)

check: venv
	$(call step,ruff format,$(BIN)/ruff format --check .)
	$(call step,ruff check,$(BIN)/ruff check .)
	$(call step,mypy,$(BIN)/mypy)
	$(call step,import-linter,$(BIN)/lint-imports --no-logo)
	$(call step,hadolint,$(BIN)/hadolint Dockerfile examples/agent-api/Dockerfile)
	$(call step,packaging,$(BIN)/pytest --quiet tests/unit/test_packaging.py)

# The example application's own tests, in a venv of its own; Debian's redis-server and postgresql are needed.
agent-test: examples/agent-api/.venv/installed-$(shell cksum < examples/agent-api/requirements-test.txt | tr ' ' -)
	@cd examples/agent-api && AGENT_EVAL=1 .venv/bin/python -m pytest --quiet

examples/agent-api/.venv/installed-%:
	@$(PYTHON) -m venv --clear examples/agent-api/.venv
	@examples/agent-api/.venv/bin/pip install --quiet --disable-pip-version-check --no-input --no-deps --require-hashes \
	  -r examples/agent-api/requirements-test.txt
	@touch $@

venv: $(LOCKED) $(INSTALLED)

# About six minutes the first time, nothing after that: the binaries are cached.
control-plane: venv
	@$(BIN)/python -m tests.controlplane build

# Needs uv. Keeps every pin that still satisfies pyproject.toml; delete the files first to take the newest of all.
lock:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --output-file requirements/run.txt pyproject.toml
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --group dev --output-file requirements/dev.txt pyproject.toml
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --group build --output-file requirements/build.txt

$(LOCKED):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "rollback-watchdog needs Python >= 3.11; name one with: make PYTHON=python3.13" >&2; exit 1; }
	@echo "== .venv from requirements/dev.txt"
	@$(PYTHON) -m venv --clear .venv
	@$(PIP) --no-deps --require-hashes -r requirements/dev.txt # the lock is whole; older pips take a newer coverage[toml] than it names
	@touch $@

$(INSTALLED): | $(LOCKED)
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@
