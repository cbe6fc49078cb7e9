# make train   install into .venv, then train LeNet on the embedded digits
# make test        install what the tests need, check the style, run the tests
# make test-full   the same, and every model compiled and against PyTorch's: an hour or so
PYTHON ?= python3
BIN := .venv/bin
TEST_JOBS ?= 2

.PHONY: train test test-full lint clean

train: .venv/installed
	$(BIN)/python train.py --config=configs/digits_lenet.py --workdir=runs/digits_lenet

test: .venv/installed-test lint
	$(BIN)/python -m pytest -n $(TEST_JOBS) --dist=worksteal

test-full: .venv/installed-test lint
	$(BIN)/python -m pytest -n $(TEST_JOBS) --dist=worksteal -m ""

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; name one: make train PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/installed-test: .venv/installed requirements-test.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-test.txt
	@touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis
