PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: demo test lint docs bench clean
.DEFAULT_GOAL := demo

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python pyproject.toml
	$(PIP) install -e '.[demo]'
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml
	$(PIP) install -e '.[dev]'
	@touch $@

$(VENV)/.docs: $(BIN)/python pyproject.toml
	$(PIP) install -e '.[docs]'
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(PIP) install -e '.[bench]'
	@touch $@

demo: $(VENV)/.demo  ## set up .venv, enroll and inspect real images
	$(BIN)/fewshot-ad demo --output demo_output

test: $(VENV)/.dev  ## install what the tests need and run them all
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.docs  ## build the documentation into site/, to be read from the file system
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: $(VENV)/.bench  ## the tables that the README quotes
	$(BIN)/python benchmarks/latency.py
	$(BIN)/python benchmarks/peers_latency.py
	$(BIN)/python benchmarks/levers.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/shared_board.py
	$(BIN)/python benchmarks/zoo_board.py
	$(BIN)/python benchmarks/float16_bank.py
	$(BIN)/python benchmarks/install_size.py torch

clean:
	rm -rf $(VENV) demo_output site
