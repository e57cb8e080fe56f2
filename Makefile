VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
OUT ?= quickstart
# One process more than there are cores, four at most: tests of Ray and of kills wait, and a process takes up to 4.5 GB.
PROCESSES ?= $(shell cores=`getconf _NPROCESSORS_ONLN`; echo $$((cores < 3 ? cores + 1 : 4)))
# Files stay whole, for their fixtures, in the order of tests/conftest.py.
PARALLEL ?= --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder
export TOKENIZERS_PARALLELISM = false

.PHONY: install quickstart study test test-quick lint docs release clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# Everything once, small, offline after the install: see scripts/quickstart.sh for what it does.
quickstart: install
	PATH="$(abspath $(BIN)):$$PATH" bash scripts/quickstart.sh $(OUT)

# The study of docs/study.md, hours on two cores; it goes on where it was stopped. STUDY=cacr for the other one.
study: install
	PATH="$(abspath $(BIN)):$$PATH" bash scripts/study.sh study $(or $(STUDY),demo)

test: install
	$(BIN)/python -m pytest $(PARALLEL)

# What a change is tried on: no processes are started, and nothing takes long.
test-quick: install
	$(BIN)/python -m pytest $(PARALLEL) -m "not processes and not slow"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site of docs/, offline: site/index.html; its search needs a server (python -m http.server -d site).
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# dist/: sdist and wheel, and the wheel tried in a fresh environment.
release:
	bash scripts/release.sh dist $(PYTHON)

clean:
	rm -rf site dist $(OUT) .pytest_cache .mypy_cache .ruff_cache
