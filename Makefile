# One verb per need; CI runs the same ones. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TESTERS ?= 3
CODE := src tests tools bench

# Tests start hundreds of programs; without it each would compile all of its modules again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
CYCLES ?= 10
MANAGERS ?= 3

.PHONY: help venv demo test test-deep chaos check lint types shape contracts proto stale scenarios scenarios-check format bench bench-scheduler bench-control bench-store sim sim-deep clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/run.stamp: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

venv: $(VENV)/dev.stamp ## Make .venv with pyswarm and all that development needs

demo: $(VENV)/run.stamp ## Walk the README's story with three real nodes on this machine
	@$(BIN)/python -m tools.demo

test: $(VENV)/dev.stamp ## Run the tests, three files at a time: most of them wait (TESTERS=n for another number)
	$(BIN)/python -m pytest -n $(TESTERS) --dist loadfile --no-loadscope-reorder

test-deep: $(VENV)/dev.stamp ## Random histories, 1,000 for each orchestrator and more for everything else that is tested so
	$(BIN)/python -m pytest -n $(TESTERS) -m hypothesis --hypothesis-profile deep --timeout 1800

chaos: $(VENV)/dev.stamp ## Users and faults on real managers, as root: CYCLES=n MANAGERS=3|5 SEED=x
	$(BIN)/python -m tests.cluster.chaos --cycles $(CYCLES) --managers $(MANAGERS) $(if $(SEED),--seed $(SEED))

check: stale scenarios-check lint types contracts shape ## Formatting, lint, types, import contracts, sizes, generated code, scenario table

lint: $(VENV)/dev.stamp ## Formatting and lint
	$(BIN)/ruff format --check --quiet $(CODE)
	$(BIN)/ruff check --quiet $(CODE)

types: $(VENV)/dev.stamp ## mypy --strict on our own code
	$(BIN)/mypy

contracts: $(VENV)/dev.stamp ## Imports point one way
	$(BIN)/lint-imports --no-cache

shape: $(VENV)/dev.stamp ## Sizes of modules, functions and classes
	$(BIN)/python tools/shape.py

proto: $(VENV)/dev.stamp ## Regenerate src/pyswarm/api from proto/
	$(BIN)/python tools/genproto.py

stale: $(VENV)/dev.stamp ## Fail when the generated code differs from proto/
	$(BIN)/python tools/genproto.py --check

scenarios: $(VENV)/dev.stamp ## Write tests/SCENARIOS.md: which test covers which scenario
	$(BIN)/python -m tools.scenarios

scenarios-check: $(VENV)/dev.stamp ## Fail when that table is stale or has a gap
	$(BIN)/python -m tools.scenarios --check

format: $(VENV)/dev.stamp ## Format the code
	$(BIN)/ruff format --quiet $(CODE)
	$(BIN)/ruff check --quiet --fix $(CODE)

bench: $(VENV)/dev.stamp ## Run the benchmarks; one JSON object a line
	$(BIN)/python -m bench.commit
	$(BIN)/python -m bench.control
	$(BIN)/python -m bench.control --managers 3
	$(BIN)/python -m bench.agents
	$(BIN)/python -m bench.agents --managers 3
	$(BIN)/python -m bench.agents --lives
	$(BIN)/python -m bench.failover
	$(BIN)/python -m bench.store
	$(BIN)/python -m bench.volume
	$(BIN)/python -m bench.replicas

bench-control: $(VENV)/dev.stamp ## Writes and reads through the control socket, of one manager and of three
	@$(BIN)/python -m bench.control
	@$(BIN)/python -m bench.control --managers 3

bench-store: $(VENV)/dev.stamp ## A large store: memory, writes, selectors; snapshots while it serves
	@$(BIN)/python -m bench.store
	@$(BIN)/python -m bench.volume

bench-scheduler: $(VENV)/dev.stamp ## Place tasks in SwarmKit's benchmark shapes, check every placement, and fit how costs grow
	@$(BIN)/python -m bench.scheduler

SEEDS ?= 300
SIM = $(if $(SEED),--seed $(SEED),--seeds $(SEEDS)) $(if $(SCENARIO),--scenario $(SCENARIO))

sim: $(VENV)/dev.stamp ## Simulate clusters: SEEDS=n of them, or SEED=x again with its trace; SCENARIO=.. for a particular kind
	$(BIN)/python -m tools.sim $(SIM)

sim-deep: $(VENV)/dev.stamp ## Simulate 10,000 clusters on all cores; ends with one line of JSON
	$(BIN)/python -m tools.sim --seeds 10000

clean: ## Remove what make made
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis src/*.egg-info
