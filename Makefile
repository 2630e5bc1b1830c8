PYTHON ?= python3
BIN := .venv/bin
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: demo test check test-all faults bench clean help

demo: .venv/.ok-demo  ## run the demo: agents learn together, one worker is killed
	@$(BIN)/academy demo

test: .venv/.ok-dev  ## run the tests (not those marked slow or fault)
	$(BIN)/pytest -q -m "not slow and not fault"

check: .venv/.ok-dev  ## lint, format, types, import directions, public names
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy --strict academy
	$(BIN)/pytest -q tests/test_architecture.py tests/test_exports.py

test-all:  ## run the tests on every CPython >= 3.11 of this machine
	@scripts/test_all.sh

faults: .venv/.ok-dev  ## run the tests that kill, stop and cut things
	$(BIN)/pytest -q -m fault

bench: .venv/.ok-dev  ## measure speed beside the peers
	$(BIN)/python -m bench

clean:  ## remove environments, caches and build output
	rm -rf .venv .venv-all .coverage .coverage.* .*_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:  ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

.venv/.ok-demo .venv/.ok-dev: .venv/.ok-%: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check -e '.[$*]'
	touch .venv/.ok-demo $@
