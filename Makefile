# Each target sets itself up: the only thing needed is Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCH := $(VENV)-bench

.PHONY: demo test test-torch lint fuzz mutants kill hostile bench leak clean

demo: $(VENV)/demo.stamp
	$(BIN)/numtape train

test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal

# Values, gradients and training beside PyTorch, which may download gigabytes.
test-torch: $(VENV)/torch.stamp
	$(BIN)/python -m pytest -n 2 --dist worksteal tests/test_torch_*.py

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/mypy

# Random programs, eager against compiled: about 15 a second. Figures in build/fuzz.json; the
# same seed again goes on where the last run ended.
PROGRAMS ?= 10000
SEED ?= 0
fuzz: $(VENV)/dev.stamp
	$(BIN)/python -m fuzz --programs $(PROGRAMS) --seed $(SEED)

# Mistakes put into passes and planning one by one: 95 of 100 must make a test fail.
mutants: $(VENV)/dev.stamp
	$(BIN)/python -m fuzz.mutation

# 200 kills of a training process, half of them inside a save: about 10 minutes.
kill: $(VENV)/dev.stamp
	$(BIN)/python tests/kills.py 200

# 2,000 mutations of each kind of file that is read: about 10 minutes.
hostile: $(VENV)/dev.stamp
	$(BIN)/python tests/hostile.py 2000

# Every peer, in an environment of its own: about 25 minutes on one core of a quiet machine.
bench: $(BENCH)/bench.stamp
	$(BENCH)/bin/python -m benchmarks

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("numtape needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[plot]"
	touch $@

$(VENV)/dev.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

$(VENV)/torch.stamp: $(VENV)/dev.stamp
	$(BIN)/python -m pip install --quiet --editable ".[dev,torch]"
	touch $@

$(BENCH)/bench.stamp: pyproject.toml
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --editable ".[bench]"
	touch $@

# A million replays of a small training step: a quarter of an hour on one quiet core.
leak: $(VENV)/dev.stamp
	$(BIN)/python -m benchmarks.leak

clean:
	rm -rf $(VENV) $(BENCH) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
