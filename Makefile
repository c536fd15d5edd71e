# make bench    set up, run the quick profile, print the table, write the HTML report
# make test     set up, run every test
# make compare  set up, say whether the working tree is slower than BASE (default HEAD), about a minute a case;
#               CASE=REGEX chooses the cases
# make exact    set up, count what a step does in BASE (default HEAD~1) and in the working tree, say what changed
# make report   set up, write the HTML report of all results that are there
# make gpu-check  set up with BACKEND=cuda13, take the suite onto an NVIDIA GPU: six minutes, one file and one table
# make mac-check  set up, hold what is assumed of Macs against this one: ten minutes, and one file to send back
# make coverage   set up, say which lines that only a Mac or a GPU runs the tests run, wherever they are
# make lock     write requirements.lock anew after a change of pyproject.toml; UPGRADE=1 takes the newest of everything
# make setup    set up only: everything goes to .venv, again and again without harm
# make lint     what `make test` checks before the tests
#
# PYTHON=python3.12, BACKEND=cpu|metal|cuda13 and PROFILE=quick|default|full choose; .venv remembers the first two.

PYTHON ?= $(shell .venv/bin/python -c 'print(".venv/bin/python")' 2>/dev/null || echo python3)
PROFILE ?= quick

# The tests that run what only a Mac runs, or a GPU; which files that are says [tool.coverage.run] in pyproject.toml.
ELSEWHERE = tests/test_host.py tests/test_doctor.py tests/test_mac_check.py tests/test_energy.py tests/test_ncu.py tests/test_extras.py $\
  tests/test_gpu_check.py tests/test_kernel.py tests/test_kernel_inplace.py

# All but `peers` and `inplace`, which nobody but a person installs.
EXTRAS = bench test cpu cuda13 metal energy share issue

.PHONY: bench test compare exact report mac-check gpu-check coverage setup lint lock

bench: setup
	@.venv/bin/python -m scripts.bench --profile $(PROFILE)

compare: setup
	@.venv/bin/python -m scripts.compare "$(or $(BASE),HEAD)" . $(if $(CASE),--case "$(CASE)")

exact: setup
	@.venv/bin/python -m scripts.compare "$(or $(BASE),HEAD~1)" . --exact

report: setup
	@.venv/bin/python -m scripts.report

mac-check: setup
	@.venv/bin/python -m scripts.mac_check

gpu-check: BACKEND ?= cuda13
gpu-check: setup
	@.venv/bin/python -m scripts.gpu_check

coverage: setup
	@.venv/bin/python -m pytest -n 2 --dist loadfile --quiet --cov --cov-report=term-missing --cov-fail-under=100 \
	  $(ELSEWHERE) -k "not cuda"

test: setup lint
	@.venv/bin/python -m pytest -n 2 --dist loadfile --benchmark-disable

lint: setup
	@.venv/bin/ruff check --quiet .
	@.venv/bin/ruff format --quiet --check .
	@.venv/bin/mypy

# One version of each package for every Python and system, with the hashes of all its files and no word of where they are.
lock:
	@.venv/bin/uv pip compile --quiet --universal --python-version 3.11 --only-binary :all: --generate-hashes $(if $(UPGRADE),--upgrade) \
	  --custom-compile-command "make lock" --output-file requirements.lock $(EXTRAS:%=--extra %) pyproject.toml

setup:
	@$(PYTHON) scripts/setup.py $(if $(BACKEND),--backend $(BACKEND))
