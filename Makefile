# `make` alone lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# What was compiled once is not compiled again by each of the processes that tests and jobs start.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Apart from what the tests run.
LINT_BIN := .venv-lint/bin
NOTEBOOKS := $(wildcard notebooks/*.ipynb)
BENCHMARKS := overhead verdicts like reporting sweep tradeoffs serving peers batching swaps drill_latency release release_store upkeep prune checklist rotation desk steps
# Whole in `make soak`.
SHORTENED := between_runs served fleet
ALONE := $(shell grep -rl 'mark\.alone' tests --include='test_*.py')
SOAKS := upkeep flood memory writers deletions kinds zoo rotation

.PHONY: help demo test check docs-check acceptance lint lint-fleet fmt typecheck perf soak notebooks snapshot catalogue reference serve lab lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

demo: $(VENV)/.runtime  ## set up, build the demo experiment, run the benchmark notebook, render its report
	@$(BIN)/pillops demo
	@$(BIN)/pillops run 01_bench || { code=$$?; [[ $$code == 4 ]] || exit $$code; }

test: $(VENV)/.dev  ## run the tests (skips, by name, what needs chromium or a GPU where there is none)
	@code=0; $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadgroup --no-loadscope-reorder -m "not docs_run and not alone" || { \
	  echo "== again, one after the other, what failed beside others"; \
	  $(BIN)/python -m pytest --last-failed --last-failed-no-failures none || code=$$?; }; \
	$(BIN)/python -m pytest -m alone $(ALONE) || code=$$?; exit $$code

check: $(VENV)/.dev  ## within a minute: style, types, and the tests of what changed
	@started=$$(date +%s); $(BIN)/ruff check .; $(BIN)/ruff format --check .; $(BIN)/mypy; \
	$(BIN)/python tools/changed_tests.py --seconds $$((started + 52 - $$(date +%s)))

docs-check: $(VENV)/.dev  ## execute every command that the documents tell their readers to type
	@$(BIN)/python -m pytest -m docs_run tests/docs

lint: $(VENV)/.dev  ## check style of code and notebooks, shell scripts and playbooks too where shellcheck and ansible-lint are installed
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/nbstripout --keep-id --verify $(NOTEBOOKS)
	@if command -v shellcheck >/dev/null; then shellcheck .ci/run scripts/*.sh; else echo "shellcheck: not installed, skipped"; fi
	@if [[ -e $(LINT_BIN)/.made ]]; then $(MAKE) --no-print-directory lint-fleet; else echo "ansible-lint: not installed, skipped (make lint-fleet)"; fi

lint-fleet: $(LINT_BIN)/.made  ## check the playbooks with ansible-lint, in an environment of its own
	@PATH="$(CURDIR)/$(LINT_BIN):$$PATH" ansible-lint --offline --strict fleet

fmt: $(VENV)/.dev  ## format code and strip notebooks
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/nbstripout --keep-id $(NOTEBOOKS)

typecheck: $(VENV)/.dev  ## strict type check of opslib
	@$(BIN)/mypy

perf: $(VENV)/.dev  ## measure our own speed and our verdicts' error rates, side by side (about half an hour)
	@$(BIN)/pillops demo
	@code=0; for name in $(SHORTENED); do \
	  echo "== benchmarks/$$name.py --short"; $(BIN)/python benchmarks/$$name.py --short || code=$$?; \
	done; for name in $(BENCHMARKS); do \
	  echo "== benchmarks/$$name.py"; $(BIN)/python benchmarks/$$name.py || code=$$?; \
	done; exit $$code

acceptance: $(VENV)/.runtime  ## walk through every operation once on the demo experiment, with a table and a report
	@$(BIN)/pillops demo
	@$(BIN)/pillops acceptance

soak: $(VENV)/.dev  ## the long loops: swaps, logs, floods, writers, deletions, kinds and models, benchmarks held against each other, over three hours
	@$(BIN)/pillops demo
	@code=0; $(BIN)/pillops drill --long || code=$$?; \
	for name in $(SHORTENED); do \
	  echo "== benchmarks/$$name.py"; $(BIN)/python benchmarks/$$name.py || code=$$?; \
	done; \
	PILLOPS_TEST_LOOPS=long $(BIN)/python -m pytest -m looped || code=$$?; for name in $(SOAKS); do \
	  echo "== benchmarks/soak_$$name.py"; $(BIN)/python benchmarks/soak_$$name.py || code=$$?; \
	done; exit $$code

notebooks: $(VENV)/.runtime  ## execute every notebook that measures or proves on the configured experiment
	@code=0; for notebook in notebooks/0[1-6]_*.ipynb notebooks/10_*.ipynb; do $(BIN)/pillops run $$notebook || code=$$?; done; exit $$code

snapshot: $(VENV)/.runtime  ## rewrite the tables of both PERFORMANCE.md from the newest good runs
	@$(BIN)/pillops snapshot

catalogue: $(VENV)/.runtime  ## bring the messages of the code into opslib/locale/*/LC_MESSAGES/pillops.po
	@mkdir -p build
	@$(BIN)/pybabel --quiet extract -F pyproject.toml -k 'tr tr_many:1,2 mark' --no-location --sort-output --omit-header -o build/pillops.pot .
	@$(BIN)/pybabel --quiet update -i build/pillops.pot -d opslib/locale -D pillops --no-fuzzy-matching --ignore-obsolete --no-wrap --omit-header

reference: $(VENV)/.runtime  ## write docs/COMMANDS.md and the tables of docs/CONFIGURATION.md and docs/MODELS.md
	@$(BIN)/python tools/commands.py
	@$(BIN)/python tools/configuration.py
	@$(BIN)/python tools/models.py

serve: $(VENV)/.runtime  ## run the reference service on the configured experiment
	@$(BIN)/pillops serve

lab: $(VENV)/.runtime  ## open JupyterLab on the notebooks
	@$(BIN)/pillops lab

lock: ## write requirements.txt, and requirements-s3.txt, -sftp.txt and -dev.txt, from pyproject.toml, in a fresh environment
	@$(PYTHON) tools/lock.py

clean:  ## remove the environment and caches; the demo and the reports stay
	rm -rf $(VENV) .venv-lint .ansible .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info[:2] in ((3, 11), (3, 12)) else "Python 3.11 or 3.12 is needed, this is " + sys.version.split()[0])'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.txt pyproject.toml | $(VENV)/bin/python
	@echo "installing requirements.txt into $(VENV) (several hundred MB the first time) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.runtime
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements-dev.txt
	@touch $@

$(LINT_BIN)/.made: fleet/requirements-lint.txt
	@$(PYTHON) -m venv .venv-lint
	@$(LINT_BIN)/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@
