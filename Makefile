# The front door. `make demo` and `make test` build what they need in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PARTS := cli manifests model pipeline
BENCHMARKS := damage detectors duplicates gpu landmarks runtimes pairs shortcuts prep scale load manifests mix model train
READY := $(VENV)/.ready

MARK ?= not slow
MINUTES ?= 5
SEED ?= 1

.PHONY: demo test slow dev check lint docs site bench attack pythons clean

demo: $(READY)
	$(BIN)/lps-prep demo build/demo

test: $(READY)
	$(BIN)/python -m pytest -m "$(MARK)"

# whole jobs, kills and crash windows, benchmarks at their smallest size: half an hour and more on two cores
slow: $(READY)
	$(BIN)/python -m pytest -m slow

dev: $(READY)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/python -m lps.cli.docs.reference docs/cli.md
	$(BIN)/python -m lps.cli.docs.audit_checks docs/audit.md
	$(BIN)/python -m tests.manifests.audit.mutants --page
	$(BIN)/python -m lps.cli.docs.codes_page docs/codes.md

# the pages of docs/ as a site in build/site; warnings, as of a link that leads nowhere, end it
site: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs --quiet build --strict --config-file docs/site/mkdocs.yml

# on the sample videos of the demo, or on those of LPS_MEDIA_DIR
bench: $(READY)
	for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python benchmarks/$$script.py || exit 1; done

# damaged media, kills, sick outputs and stores, forged files; build/attack/report.md adds up over runs
attack: $(READY)
	$(BIN)/python -m benchmarks.attack --minutes $(MINUTES) --seed $(SEED)

# the wheel with the newest release of every dependency on every other Python that runs, or on those of PYTHONS=
pythons: $(READY)
	.ci/pythons $(PYTHONS)

$(READY): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	# alone: of what it requires, only OpenCV with a window system is missing, which needs libGL
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps face-alignment
	mkdir -p build/links/lps
	for part in $(PARTS); do ln -sfn ../../../$$part build/links/lps/$$part; done
	touch $(READY)

clean:
	rm -rf build dist .venv *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
	find $(PARTS) tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
