# make demo   sets everything up and runs MovieLens-100K from raw log to report
# make test   sets everything up and passes the tests
# make test-all  the same and the long sweeps, with coverage: for a scheduled job
# make test-airflow  DAGs of a real Airflow with a Ray cluster, in an environment of its own
# make test-dagster  assets of a real Dagster, in an environment of its own
# make test-prefect  a flow of a real Prefect, in an environment of its own
# make test-s3  the demo on S3 servers: moto, ministack, JuiceFS; requests are counted
# make test-images  both images with Podman: the line on them, containers killed; needs root
# make test-install  the wheel: built twice, installed without and with extras, tried, measured
# make test-stores  formats and a model registry whose packages `make test` does not install
# make fuzz   10,000 random tables, written by several libraries, each read as one log
# make storm  faults at random on real processes, MINUTES=30: kills, pauses, full disks, two drivers
# make check  formatting, lint, types, documentation
# make docs   writes the generated pages and builds the site into site/
# make bench  what the benchmarks say on this machine
# make clean  removes what was built (runs/ stays)

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || \
	command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --use-pep517 --constraint constraints.txt

# Where torch comes from: builds for CPUs, as the default build on Linux brings CUDA with it.
# `make TORCH_INDEX= demo` takes that one. Without an answer from there, pip's own index has it.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

PYTEST := $(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder

MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

.DEFAULT_GOAL := help
.PHONY: demo test test-all test-airflow test-dagster test-prefect test-s3 test-images test-install test-stores fuzz storm check docs bench clean help

demo: .venv/.ready
	$(BIN)/embedmill run examples/movielens-100k.toml

test: .venv/.ready-dev
	$(PYTEST) --durations=10 -m "not exhaustive" $(TESTS)

test-all: .venv/.ready-dev
	$(BIN)/python -m coverage erase
	$(PYTEST) --durations=30 --cov --cov-report=term $(TESTS)

# With [dev]: the Jobs API of Ray is in ray[default].
test-airflow: .venv/.ready-dev
	tests/airflow/run.sh .venv "$(PYTHON)"

test-dagster: .venv/.ready
	tests/dagster_assets/run.sh .venv "$(PYTHON)"

test-prefect: .venv/.ready
	tests/prefect/run.sh .venv "$(PYTHON)"

test-s3: .venv/.ready-dev
	tests/object_stores/run.sh .venv "$(PYTHON)"

# IMAGES has further options of check_images.py, such as --build=--build-arg=TORCH_INDEX=
test-images: .venv/.ready-dev
	tests/images/run.sh .venv "$(PYTHON)" $(IMAGES)

test-install:
	tests/install/run.sh "$(PYTHON)"

test-stores: .venv/.ready-dev
	tests/stores/run.sh "$(CURDIR)/$(BIN)/python"

fuzz: .venv/.ready-dev
	FUZZ_TABLES=10000 $(BIN)/python -m pytest -n0 -q --timeout=0 tests/prepare/test_differential.py

# Findings have a seed: make storm STORM='--seed SEED --rounds 1'
MINUTES ?= 30
storm: .venv/.ready-dev
	$(BIN)/python -m tests.storm --minutes $(MINUTES) $(STORM)

check: .venv/.ready-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	MYPYPATH=benchmarks $(BIN)/mypy --explicit-package-bases benchmarks
	$(BIN)/python docs/generate.py --check
	$(MKDOCS)

docs: .venv/.ready-dev
	$(BIN)/python docs/generate.py
	$(MKDOCS)

bench: .venv/.ready-dev
	$(BIN)/python benchmarks/line.py

clean:
	rm -rf .venv build dist site *.egg-info .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

help:
	@sed -n 's/^# \(make .*\)/  \1/p' Makefile

.venv/.made:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "Python 3.11, 3.12 or 3.13 is needed, $(PYTHON) is another: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

.venv/.torch: .venv/.made
	@echo "Installing (a few minutes the first time) ..."
	@{ [ -n "$(TORCH_INDEX)" ] && \
		$(PIP) --no-deps --retries 0 --timeout 15 --index-url $(TORCH_INDEX) torch 2>/dev/null; } || \
		$(PIP) --no-deps torch
	@touch $@

.venv/.ready: .venv/.torch pyproject.toml constraints.txt
	$(PIP) --editable '.[train]'
	@touch $@

.venv/.ready-dev: .venv/.torch pyproject.toml constraints.txt
	$(PIP) --editable '.[dev]'
	@touch $@ .venv/.ready
