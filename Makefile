# make bench    set up, run the quick profile, print the table, write the HTML report
# make test     set up, run every test
# make compare  set up, say whether the working tree is slower than BASE (default HEAD), about a minute a case;
#               CASE=REGEX chooses the cases
# make exact    set up, count what a step does in BASE (default HEAD~1) and in the working tree, say what changed
# make report   set up, write the HTML report of all results that are there
# make setup    set up only: everything goes to .venv, again and again without harm
# make lint     what `make test` checks before the tests
#
# PYTHON=python3.12, BACKEND=cpu|metal|cuda13 and PROFILE=quick|default|full choose; .venv remembers the first two.

PYTHON ?= $(shell .venv/bin/python -c 'print(".venv/bin/python")' 2>/dev/null || echo python3)
PROFILE ?= quick

.PHONY: bench test compare exact report setup lint

bench: setup
	@.venv/bin/python -m scripts.bench --profile $(PROFILE)

compare: setup
	@.venv/bin/python -m scripts.compare "$(or $(BASE),HEAD)" . $(if $(CASE),--case "$(CASE)")

exact: setup
	@.venv/bin/python -m scripts.compare "$(or $(BASE),HEAD~1)" . --exact

report: setup
	@.venv/bin/python -m scripts.report

test: setup lint
	@.venv/bin/python -m pytest -n 2 --dist loadfile --benchmark-disable

lint: setup
	@.venv/bin/ruff check --quiet .
	@.venv/bin/ruff format --quiet --check .
	@.venv/bin/mypy

setup:
	@$(PYTHON) scripts/setup.py $(if $(BACKEND),--backend $(BACKEND))
