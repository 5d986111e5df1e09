# Everything runs in .venv, which the first target that needs it makes.
PYTHON ?= python3
BIN := .venv/bin
OUT ?= runs/quickstart
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: quickstart test check bench gpu models clean

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	# uv resolves and installs in seconds; plain pip does the same where uv cannot be had.
	($(BIN)/python -m pip install -q uv && $(BIN)/uv pip install -q --python $(BIN)/python -e '.[dev]') \
	  || $(BIN)/python -m pip install -q -e '.[dev]'
	touch .venv/ready

quickstart: .venv/ready  ## align the embedded text-to-image model and write a report
	$(BIN)/mmalign quickstart image --out $(OUT)

test: .venv/ready check  ## everything CI runs
	# one thread per worker: small models gain nothing from more, and workers would fight over cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

check: .venv/ready  ## style, types, import order
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/ready  ## speed ratios against bare model calls; writes tests/benchmarks/results/
	$(BIN)/python -m tests.benchmarks

gpu: .venv/ready  ## correctness, memory and throughput on a CUDA device; one report
	$(BIN)/python -m pytest tests/gpu -m gpu -rs

models: .venv/ready  ## retrain the embedded models (several hours on two CPU cores)
	$(BIN)/mmalign miniworld train

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
