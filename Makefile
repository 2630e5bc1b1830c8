PYTHON ?= python3
BIN := .venv/bin
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: demo test check test-all test-acl faults soak simulate fuzz bench bench-quick peers clean help

demo: .venv/.ok-demo  ## run the demo: agents learn together, one worker is killed
	@$(BIN)/academy demo

# Two at a time, file by file; they have namespaces, ports and directories of their own.
TEST := pytest -q -n 2 --dist loadfile -m "not slow and not fault"

test: .venv/.ok-dev  ## run the tests (not those marked slow or fault)
	$(BIN)/$(TEST)

check: .venv/.ok-dev  ## lint, format, types, import directions, public names, versions
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy --strict academy
	$(BIN)/pip check --disable-pip-version-check
	$(BIN)/pytest -q tests/test_architecture.py tests/test_exports.py

test-all:  ## run the tests on every CPython >= 3.11 of this machine
	@scripts/test_all.sh

test-acl: .venv/.ok-dev  ## run the tests as users who may use one namespace
	ACADEMY_TEST_ACL=1 $(BIN)/$(TEST)

faults: .venv/.ok-dev  ## run the tests that kill, stop and cut things
	$(BIN)/pytest -q -m fault

MINUTES ?= 10
soak: .venv/.ok-dev  ## all faults at random under load: make soak MINUTES=10
	$(BIN)/python -m tests.fault.soak --minutes $(MINUTES)
	$(BIN)/python -m tests.fault.churn --minutes $(MINUTES)

simulate: .venv/.ok-dev  ## 20,000 worlds under the real protocol, then without each rule
	$(BIN)/python -m tests.simulation --seeds 20000
	$(BIN)/python -m tests.simulation --seeds 1000 --all

fuzz: .venv/.ok-dev  ## ten minutes of damaged bytes for every parser
	$(BIN)/python -m tests.fuzz --seconds 600

bench: .venv/.ok-dev  ## measure speed beside the peers that are there (10 minutes)
	$(BIN)/python -m bench

bench-quick: .venv/.ok-dev  ## the same, less of it (2 minutes)
	$(BIN)/python -m bench --quick

peers: .venv-peers/.ok  ## set up the peers that bench compares with

.venv-peers/.ok: scripts/make_peers.sh
	scripts/make_peers.sh .venv-peers $(PYTHON)
	touch $@

clean:  ## remove environments, caches and build output
	rm -rf .venv .venv-all .venv-peers .coverage .coverage.* .*_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:  ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

.venv/.ok-demo .venv/.ok-dev: .venv/.ok-%: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check -e '.[$*]'
	touch .venv/.ok-demo $@
