# The newcomer's two commands are `make demo` and `make test`; both make .venv first, from the pinned lock.
# Needed on the machine: Python 3.11+ with pip, make, and network to the package registries.
PYTHON ?= python3
UV := uv==0.13.9
BIN := .venv/bin
# The peers of `feedmill bench feed` want older libraries than training does, so they live apart.
BENCH_BIN := .venv-bench/bin
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --no-annotate --custom-compile-command "make lock" pyproject.toml

.PHONY: install bench-install demo test test-fast lint bench lock clean

install: .venv/.installed

bench-install: .venv-bench/.installed

.venv/.installed: requirements.lock
.venv-bench/.installed: requirements-bench.lock

.venv/.installed .venv-bench/.installed: %/.installed: pyproject.toml
	test -x $*/bin/python || $(PYTHON) -m venv $*
	test -x $*/bin/uv || $*/bin/python -m pip install --quiet --disable-pip-version-check $(UV)
	$*/bin/uv pip sync --quiet --python $*/bin/python --require-hashes $(filter %.lock,$^)
	$*/bin/uv pip install --quiet --python $*/bin/python --no-deps --editable .
	touch $@

demo: install
	$(BIN)/feedmill demo

# Tests wait for Kafka more than they compute: three processes on two cores, each with a broker of its own.
test: install
	$(BIN)/python -m pytest --numprocesses 3 --dist worksteal

# For the edit-and-test loop: no Kafka, no torch, no test marked slow. Under a minute once numba's cache is filled.
test-fast: install
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal --fast

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: bench-install
	$(BENCH_BIN)/feedmill bench feed

lock:
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check $(UV)
	$(COMPILE) --extra dev --output-file requirements.lock
	$(COMPILE) --extra bench --output-file requirements-bench.lock

clean:
	rm -rf .venv .venv-bench .pytest_cache .mypy_cache .ruff_cache build *.egg-info
