# Two commands on a fresh machine: `make demo` and `make test`. Needs Python 3.11 to 3.13, make and a C compiler.

PYTHON ?= python3
BIN := .venv/bin
EXTRAS := training,radiomics,serving,dev

# Two processes share the tests, file by file; those of whole servers come after, one by one, since they tell time.
TESTS = $(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadfile --ignore tests/end_to_end $(PYTEST)
END_TO_END = $(BIN)/python -m pytest -m "not slow" tests/end_to_end $(PYTEST)

.PHONY: help setup demo test test-slow check serve benchmarks constraints clean

help:
	@echo "make demo        set up, then train, judge and register a model on real data (about 3 minutes)"
	@echo "make test        set up, then run the tests"
	@echo "make serve       serve the demo's model on 127.0.0.1:3000"
	@echo "make check       lint, types, import contracts and tests: what CI runs"
	@echo "make test-slow   the statistics at full size"
	@echo "make benchmarks  speeds, as ratios"

setup: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt requirements-demo.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Python 3.11 to 3.13 is needed; name one with PYTHON=python3.12"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet "uv>=0.9,<1"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable ".[$(EXTRAS)]"
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement requirements-demo.txt
	@touch $@

demo: setup
	$(BIN)/hypoxia train configs/demo.yaml

test: setup
	$(TESTS)
	$(END_TO_END)

test-slow: setup
	$(BIN)/python -m pytest -m slow $(PYTEST)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(TESTS)
	$(END_TO_END)

serve: setup
	$(BIN)/hypoxia serve --model demo-hypoxia

benchmarks: setup
	$(BIN)/python benchmarks/selection.py
	$(BIN)/python benchmarks/metrics.py
	$(BIN)/python benchmarks/brix.py
	$(BIN)/python benchmarks/composite.py
	$(BIN)/python benchmarks/profiles.py
	$(BIN)/python benchmarks/extraction.py
	$(BIN)/python benchmarks/serving/run.py

# Names and versions only: which index they come from is the machine's business.
constraints: setup
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --no-header --no-annotate \
	  --no-emit-index-url pyproject.toml --output-file constraints.txt

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
