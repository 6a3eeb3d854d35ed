# From a fresh clone and Python 3.11: `make demo`, `make test`. The environment is made once, in
# .venv, and anew when the lock or pyproject.toml changes.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
VLLM := .venv-vllm

# Tests run side by side, where threads that spin while they wait take each other's cores.
test slow: export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help setup demo test slow lint format lock vllm-env

help:
	@echo "make demo      train the small model and score it on held-out streams (minutes, CPU)"
	@echo "make test      the quick tests"
	@echo "make slow      the slow tests; those against vLLM run where 'make vllm-env' was made"
	@echo "make lint      ruff and mypy"
	@echo "make format    ruff format"
	@echo "make lock      write requirements.lock from what is installed in $(VENV)"
	@echo "make vllm-env  vLLM for CPUs, in an environment of its own"

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	@"$(PYTHON)" -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"Python 3.11 or newer is needed, {sys.executable} is {v[0]}.{v[1]}; name one: make PYTHON=...")'
	test -x $(RUN) || "$(PYTHON)" -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

demo: $(READY)
	$(RUN) -m joyvl_train recipe=sft setting=short

test: export OMP_NUM_THREADS = 1
test: $(READY)
	$(RUN) -m pytest --numprocesses auto --maxprocesses 8 -m "not slow and not gpu"

slow: export OMP_NUM_THREADS = 1
slow: $(READY)
	$(RUN) -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile --durations=15 \
		-m "slow and not gpu"

lint: $(READY)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

format: $(READY)
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

lock:
	$(RUN) .ci/lock.py > requirements.lock.new
	mv requirements.lock.new requirements.lock

# vLLM brings a torch and a transformers of its own and is spoken to over HTTP.
vllm-env: $(VLLM)/.ready

$(VLLM)/.ready: requirements-vllm.lock serve/vllm_env.sh
	PYTHON="$(PYTHON)" PIP_CONSTRAINT=requirements-vllm.lock bash serve/vllm_env.sh $(VLLM)
	@touch $@
