# make bench    set up, run the quick profile, print the table, write the HTML report
# make test     set up, run every test
# make setup    set up only: everything goes to .venv, again and again without harm
# make lint     what CI checks besides the tests

PYTHON ?= python3
BACKEND ?= $(if $(filter Darwin,$(shell uname -s)),metal,cpu)
PROFILE ?= quick

.PHONY: bench test setup lint

bench: setup
	@.venv/bin/python -m scripts.bench --profile $(PROFILE)

test: setup lint
	@.venv/bin/python -m pytest --benchmark-disable

lint: setup
	@.venv/bin/ruff check --quiet .
	@.venv/bin/ruff format --quiet --check .
	@.venv/bin/mypy

setup:
	@$(PYTHON) scripts/setup.py --backend $(BACKEND)
