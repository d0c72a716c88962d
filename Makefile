PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint docs clean

demo: $(VENV)/.run
	$(BIN)/python launch.py --config=configs/demo.py --workdir=runs/demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest tests

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(VENV)/.docs
	$(BIN)/python -m mkdocs build --strict

# A stamp per requirements file: set-up runs again only when the file changes.
$(VENV)/.run: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

$(VENV)/.dev: requirements-dev.txt requirements-merp.txt requirements-vgmidi.txt requirements-m4a.txt $(VENV)/.run
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

$(VENV)/.docs: requirements-docs.txt $(VENV)/.run
	$(BIN)/python -m pip install --quiet -r requirements-docs.txt
	touch $@

clean:
	rm -rf $(VENV) runs
