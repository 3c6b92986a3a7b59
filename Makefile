# make setup   a virtual environment with everything
# make run     meta-train the quickstart and evaluate it on held-out tasks; interrupted, the same command continues
# make test       everything that matters, in minutes; make test-all: the slow rest
# make docs       the documentation site in site/; a warning is an error
# make lint / type / bench

PYTHON ?= python3
VENV ?= .venv
RUN ?= runs/quickstart
BIN := $(VENV)/bin
.PHONY: setup run test test-all lint type bench docs

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt -e ".[batch,dev]"
	touch $@

run: setup
	$(BIN)/metarl train experiments/quickstart.yaml --run-dir $(RUN) --resume
	$(BIN)/metarl evaluate $(RUN)

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow" --durations 15

test-all: setup
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m slow --durations 15

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

type: setup
	$(BIN)/mypy

docs: setup
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[batch,dev,docs]"
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs site

bench: setup
	for file in experiments/benchmarks/[a-z]*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done
