# Every target first sets up .venv from constraints.txt, where it is missing or older than the pins.
#   make PYTHON=/path/to/python3.12 …     sets up with that interpreter
#   make test PYTEST_ARGS="-k grpo -x"    passes options on to pytest

STAMP := .venv/.installed
BIN := .venv/bin
BOOK := _build/html/index.html
PYTHON ?=
PYTEST_ARGS ?=

# Cells, tests and the testbed's models run side by side: more than one thread each makes all of them slower.
OMP_NUM_THREADS ?= 1
export OMP_NUM_THREADS

SUPPORTED := import sys; sys.exit(not (3, 11, 5) <= sys.version_info[:3] < (3, 13))

.DEFAULT_GOAL := help
.PHONY: help reproduce test lint book paper clean
.DELETE_ON_ERROR:

help:  ## lists the targets
	@echo "make TARGET, one of:"
	@sed -n 's/^\([a-z]*\):.*## /\1|/p' Makefile | while IFS='|' read -r t d; do printf '  %-11s%s\n' "$$t" "$$d"; done

reproduce: $(STAMP)  ## trains the tiny testbed, runs its 54 cells and builds the book
	@echo "reproduce: the tiny testbed, its 54 cells, then the book; what is finished already is skipped"
	$(BIN)/lrd testbed tiny
	$(BIN)/lrd baseline tiny
	$(BIN)/lrd rewards tiny
	$(BIN)/lrd matrix tiny
	$(BIN)/lrd book
	@echo "reproduce: the book is $(CURDIR)/$(BOOK)"

book: $(STAMP)  ## builds the book from what lies in runs/
	@echo "book: from what lies in runs/"
	$(BIN)/lrd book
	@echo "book: $(CURDIR)/$(BOOK)"

paper: $(STAMP)  ## sets the paper and the poster from the built book, which is built where there is none
	@test -f $(BOOK) || $(BIN)/lrd book
	$(BIN)/python -m lrd.report.paper

test: lint  ## lint, then all tests
	@echo "test: pytest over tests/"
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal $(PYTEST_ARGS)

lint: $(STAMP)  ## ruff check, ruff format --check, import-linter and pyright; changes nothing
	@echo "lint: ruff, import-linter and pyright; they change nothing"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/pyright --pythonpath $(BIN)/python

clean:  ## removes the built book and caches, never runs/, models/ or .venv
	@echo "clean: removes the built book and caches; runs/, models/ and .venv stay"
	rm -rf _build paper/*.pdf build dist lrd.egg-info .jupyter_cache .pytest_cache .ruff_cache .hypothesis
	find lrd tests notebooks book \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

# The stamp goes first and comes back last: an installation that broke off is never taken for a finished one.
# torch comes before the rest and alone, so that a CPU build at hand is taken and brings no CUDA packages.
$(STAMP): constraints.txt pyproject.toml
	@rm -f $@
	@if [ -x $(BIN)/python ] && [ -z "$(PYTHON)" ] && $(BIN)/python -c '$(SUPPORTED)' 2>/dev/null; then \
	    echo "set-up: .venv is unfinished or older than the pins; bringing it up to date"; exit 0; \
	fi; \
	for python in $(or $(PYTHON),python3.11 python3.12 python3); do \
	    if "$$python" -c '$(SUPPORTED)' 2>/dev/null; then \
	        echo "set-up: .venv from constraints.txt, with $$("$$python" -V); this takes some minutes, once"; \
	        exec "$$python" -m venv --clear .venv; \
	    fi; \
	done; \
	echo "set-up: no Python 3.11 (from 3.11.5) or 3.12 among: $(or $(PYTHON),python3.11 python3.12 python3)." >&2; \
	echo "        Install one, or name it: make PYTHON=/path/to/python3.11 …" >&2; exit 1
	@echo "set-up: 1 of 2, torch"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt torch
	@echo "set-up: 2 of 2, the rest"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[book,test,pretrained]'
	@touch $@
