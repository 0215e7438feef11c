# The two commands of the README, and what CI runs. Python 3.11 or newer, make and git are all that is needed.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed
TORCHAO := $(VENV)/torchao

# What `make demo` makes; .ci/run makes it smaller.
DEMO ?= demo
DEMO_TILES ?= 1000
DEMO_SEEDS ?= 42 43 44
DEMO_ARGS ?=

# Where `make shipped` works; what it makes lies in csmae_hf/sample/.
SHIPPED ?= shipped

# Passed to `make bench`: names of benchmarks, --full, --json FILE, --plots FOLDER.
BENCH_ARGS ?=

# Test files run side by side, one thread each; 0 runs them one after another.
TEST_JOBS ?= 2

export HF_HUB_DISABLE_TELEMETRY := 1
export HF_HUB_OFFLINE := 1

.PHONY: help demo shipped test filters interrupts bench lint install clean milvus docs

help:
	@echo "make demo   generate a sample archive, pre-train CSMAE-SESD on it, retrieve across sensors"
	@echo "make test   the whole test suite, with the linters"
	@echo "make filters  ten thousand filters at random against plain Python"
	@echo "make interrupts  200 trainings, each interrupted at a random moment"
	@echo "make bench  measure speed beside the yardsticks; about a quarter of an hour on two cores"
	@echo "make docs   the documentation as a site, with search and the reference: docs/_build/html"

install: $(STAMP)

# torch first, so that nothing after it pulls another build
$(STAMP): setup.cfg pyproject.toml constraints.txt
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --constraint constraints.txt torch
	$(RUN) -m pip install --constraint constraints.txt --editable '.[dev,viz,geo,faiss,milvus,app]'
	touch $@

demo: $(STAMP)
	$(VENV)/bin/csmae sample $(DEMO)/sample --tiles $(DEMO_TILES) --seed 0
	@set -e; for seed in $(DEMO_SEEDS); do \
	  echo "== Pre-training CSMAE-SESD, seed $$seed"; \
	  $(RUN) run_pretraining.py configs/demo.yaml --data $(DEMO)/sample --output_dir $(DEMO)/model-seed$$seed --seed $$seed --overwrite $(DEMO_ARGS); \
	done
	@echo "== Retrieval in all four directions"
	$(RUN) run_retrieval.py $(addprefix $(DEMO)/model-seed,$(DEMO_SEEDS)) --data $(DEMO)/sample --output_dir $(DEMO)/results --untrained --overwrite
	@echo "To go on with csmae and python from here, once in this terminal: . $(VENV)/bin/activate"

# The trained model that comes with the package, made again: about 20 minutes of one core. Measured on scenes that it never saw.
shipped: $(STAMP)
	$(VENV)/bin/csmae sample $(SHIPPED)/sample --tiles 5000 --seed 1
	$(RUN) run_pretraining.py configs/shipped.yaml --data $(SHIPPED)/sample --output_dir $(SHIPPED)/run --overwrite
	$(VENV)/bin/csmae sample $(SHIPPED)/unseen --tiles 1000 --seed 0
	$(RUN) .ci/ship_model.py $(SHIPPED)/run $(SHIPPED)/unseen $(SHIPPED)/results

test: $(STAMP) $(TORCHAO)/.installed lint
	OMP_NUM_THREADS=1 PYTHONPATH=$(CURDIR)/$(TORCHAO) $(RUN) -m pytest -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder

# Ten thousand filters at random against plain Python; the tests try some hundreds.
filters: $(STAMP)
	CSMAE_RANDOM_FILTERS=10000 $(RUN) -m pytest tests/search/test_filters_at_random.py -q

# For the tests alone: where it is installed, every import of Transformers prints what it finds missing of a GPU.
$(TORCHAO)/.installed: $(STAMP)
	$(RUN) -m pip install --constraint constraints.txt --no-deps --target $(TORCHAO) torchao
	touch $@

# 200 trainings, each interrupted at a random moment; a quarter of an hour on an idle core. The tests make a handful.
interrupts: $(STAMP)
	OMP_NUM_THREADS=1 PYTHONPATH=$(CURDIR) $(RUN) tests/interrupted_runs.py 200

# Each step beside its yardstick and the machine's limit: see docs/performance.md.
bench: $(STAMP)
	$(RUN) -m benchmarks $(BENCH_ARGS)

# The pages of docs/ and the reference of the code as a site that needs no network; a broken link or docstring ends it.
docs: $(VENV)/.docs
	$(RUN) -m sphinx --fail-on-warning --keep-going --quiet -d docs/_build/doctrees docs docs/_build/html
	@echo "docs/_build/html/index.html"

$(VENV)/.docs: $(STAMP)
	$(RUN) -m pip install --constraint constraints.txt --editable '.[docs]'
	touch $@

# A Milvus server as a wheel, in an environment of its own: it is old, and wants an old setuptools. tests/retrieval/index uses it.
milvus: .venv-milvus/.installed

.venv-milvus/.installed:
	test -x .venv-milvus/bin/python || $(PYTHON) -m venv .venv-milvus
	.venv-milvus/bin/python -m pip install --quiet 'milvus==2.3.5' 'setuptools<81'
	touch $@

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-logo

clean:
	rm -rf $(DEMO) build dist docs/_build docs/api .pytest_cache .ruff_cache .mypy_cache *.egg-info
