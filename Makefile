# Every target makes the environment it needs in .venv: a fresh clone needs Python 3.10 or newer (with venv) and git.
#
#   make PYTHON3=python3.12 test     another Python for .venv
#   make WORKERS=8 test              tests in eight processes instead of four; WORKERS=0 runs them in one, for a debugger
#   make TORCH_INDEX=URL test        another package index for torch alone, for instance PyTorch's own CPU index:
#                                    https://download.pytorch.org/whl/cpu (without it, Linux gets the CUDA build)
#   PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS and pip's other variables and settings are honoured in every step.

PYTHON3 ?= python3
VENV ?= .venv
TORCH_INDEX ?=

PYTHON := $(VENV)/bin/python
PIP := $(PYTHON) -m pip install --disable-pip-version-check -c constraints.txt
STAMP := $(VENV)/.installed
WORKERS ?= 4
PYTEST = $(PYTHON) -m pytest -n $(WORKERS)

export QUICK
unexport PYTHONDONTWRITEBYTECODE  # many tests start a Python: what it compiles is kept

.DEFAULT_GOAL := help
.PHONY: help env demo check test-quick test test-all lint lint-style lint-format lint-types format docs bench bench-papers bench-load bench-speed bench-gateway clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*## ' Makefile | awk 'BEGIN {FS = ":.*## "} {printf "  make %-13s %s\n", $$1, $$2}'

env: $(STAMP)  ## Make .venv with everything that the other targets need

demo: $(STAMP)  ## Train, load and search real vectors in a real Milvus, from nothing
	$(PYTHON) -m examples.demo

check: lint test-quick  ## Run lint and the quick tests: some three minutes

test-quick: WORKERS = logical
test-quick: $(STAMP)  ## Run the tests that need no server, in a process a core
	$(PYTEST) -m "not server and not slow" $(ARGS)

test: $(STAMP)  ## Run all tests but the slow ones, real engines included (ARGS="-k name" passes options to pytest)
	$(PYTEST) -m "not slow" $(ARGS)

test-all: $(STAMP)  ## Run every test: kills, imports, fuzzing, other SDKs and programs too
	$(PYTEST) $(ARGS)

lint: lint-style lint-format lint-types  ## Run every check of style, format and types

lint-style: $(STAMP)  ## Check the style (ruff check)
	$(PYTHON) -m ruff check .

lint-format: $(STAMP)  ## Check the format (ruff format --check)
	$(PYTHON) -m ruff format --check .

lint-types: $(STAMP)  ## Check the types of plugin/ and exporters/ (mypy, strict)
	$(PYTHON) -m mypy

format: $(STAMP)  ## Repair style and format where ruff can
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

docs: $(STAMP)  ## Build the documentation as a site in build/site (Python 3.11 or newer)
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict --quiet

bench: $(STAMP)  ## Measure the main job in Milvus, beside Milvus's own index types (QUICK=1, PARTS="job memory")
	$(PYTHON) -m benchmarks milvus $(PARTS)

bench-papers: $(STAMP)  ## Hold the encoders against what would be chosen instead (QUICK=1, TABLES="1 4")
	$(PYTHON) -m benchmarks papers $(TABLES)

bench-load: $(STAMP)  ## Hold alula load to its promises: faults, rows a second, memory (QUICK=1, PARTS="faults memory")
	$(PYTHON) -m benchmarks loading $(PARTS)

bench-speed: $(STAMP)  ## Hold searches in one process against faiss, scipy and Seismic (QUICK=1, PARTS="hnsw codes lite3")
	$(PYTHON) -m benchmarks speed $(PARTS)

bench-gateway: $(STAMP)  ## Measure the gateway, and break things around it for two hours (QUICK=1, PARTS="latency soak")
	$(PYTHON) -m benchmarks gateway $(PARTS)

clean:  ## Remove .venv, caches and build outputs
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch goes first and alone: constraints.txt pins its version, so the second step finds it there and takes no other.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON3) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo 'Alula needs Python 3.10 or newer, and "$(PYTHON3)" is older or missing.' \
	       'Name another one: make PYTHON3=/path/to/python3 ...' >&2; exit 1; }
	test -x $(PYTHON) || $(PYTHON3) -m venv $(VENV)
	$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	$(PIP) -e '.[dev]'
	@touch $@
