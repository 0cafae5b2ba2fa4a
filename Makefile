# Everything a newcomer types. `make` alone lists it.
#
#   make generate PROMPT="two foxes on a blue background" ARGS="--seed 7 --candidates 32"
#   make test ARGS="-k sampling -x"

.DEFAULT_GOAL := help
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PROMPT ?= fox on a blue background
ARGS ?=

# Handed over through the environment, so that quotes, dollars and backticks in it stay text.
export PROMPT_TEXT := $(value PROMPT)

.PHONY: help setup generate test demo lint types format bench bench-gpu clean

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: $(STAMP) ## make .venv and install everything (a minute or two, 6 GB)

generate: $(STAMP) ## draw PROMPT with the bundled model, into pictures/
	@$(BIN)/dalle generate $(ARGS) -- "$$PROMPT_TEXT"

test: lint types ## everything that must pass: format, lint, types, tests
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadgroup $(ARGS)

lint: $(STAMP) ## check format and lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP) ## check types
	$(BIN)/mypy --num-workers auto

format: $(STAMP) ## format, and repair what lint can repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## measure speed, beside what this machine could do
	$(BIN)/dalle bench --compile true $(ARGS)

bench-gpu: $(STAMP) ## the same on a GPU, for a model of 1.2 billion weights
	$(BIN)/dalle bench xl --device cuda --parts '[prefill,decode,vae,clip,train]' \
	  --batches '[1,8,64]' --dtypes '[bf16,int8]' --compile true $(ARGS)

demo: $(STAMP) ## serve the web page on http://127.0.0.1:7860
	@$(BIN)/python app.py $(ARGS)

clean: ## remove .venv and all caches; data, runs and pictures stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
	find dalle vae tests -name __pycache__ -prune -exec rm -rf {} +

# Rebuilt only when what is to be installed has changed. uv installs in half of pip's time, from
# pip's index where it has one of its own (a mirror); where uv cannot, pip does. Gradio asks for a
# Pillow older than the patched one but works with it, so Pillow comes last.
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || { \
	  for python in $(PYTHON) python3 python3.13 python3.12 python3.11 python; do \
	    "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	    "$$python" -m venv $(VENV) && exit 0; \
	    rm -rf $(VENV); \
	    echo "make setup: $$python cannot make a virtual environment; see its message above" >&2; \
	    exit 1; \
	  done; \
	  echo "make setup: needs Python 3.11 or newer; if it is not on the PATH: make setup PYTHON=/path/to/python3" >&2; \
	  exit 1; }
	grep -v '^pillow==' constraints.txt > $(VENV)/constraints-page.txt
	@extras=dev,demo; \
	  case "$$(uname)" in Linux) \
	    command -v g++ >/dev/null || command -v c++ >/dev/null || extras=$$extras,compiler;; esac; \
	  pip() { $(BIN)/python -m pip --disable-pip-version-check "$$@"; }; \
	  index=$${PIP_INDEX_URL:-$$(pip config get global.index-url 2>/dev/null)}; \
	  export UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$$index}"; \
	  install() { \
	    echo "installing $$*"; \
	    $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python "$$@" || { \
	      echo "make setup: uv cannot install here (above); pip will" >&2; \
	      pip install --quiet "$$@"; }; }; \
	  pip install --quiet -c constraints.txt --only-binary uv uv; \
	  install -c $(VENV)/constraints-page.txt -e ".[$$extras]" \
	    && install -c constraints.txt --no-deps pillow
	@$(BIN)/python -m compileall -q dalle vae # of what was just installed, uv has done so
	@$(BIN)/python -m dalle.native
	@touch $@
