# make train   install into .venv, then train LeNet on the embedded digits
# make test        install what the tests need, check the style, test every behavior once: 6 minutes
# make test-slow   the rest: more kills, processes and networks, memory, benchmarks: 15 minutes
# make test-full   both, and every model compiled and against PyTorch's: an hour or so
# make test-cluster   jobs and sweeps in a SLURM of two nodes, which it starts: as root, on Debian, after
#                     apt-get install slurmctld slurmd slurm-client munge
# make test-ray       a sweep on a Ray cluster of two nodes, which it starts
# make test-page      tools.page and report.html in a browser, after apt-get install chromium
# make bench       measure speed beside PyTorch's, which goes into .venv-torch; BENCH="--only=step"
PYTHON ?= python3
BIN := .venv/bin
TEST_JOBS ?= 2
BENCH ?=
# Options of pip for PyTorch. What pip finds by itself may be a build for GPUs of several gigabytes;
# the build for CPUs is far smaller, and is all that the benchmark uses. PyTorch's installation page
# names its index: make bench TORCH_PIP="--index-url=..."
TORCH_PIP ?=

.PHONY: train test test-slow test-full test-cluster test-ray test-page bench lint clean

train: .venv/installed
	$(BIN)/python train.py --config=configs/digits_lenet.py --workdir=runs/digits_lenet

test: .venv/installed-test lint
	$(BIN)/python -m pytest -n $(TEST_JOBS) --dist=worksteal

test-slow: .venv/installed-test
	$(BIN)/python -m pytest -n $(TEST_JOBS) --dist=worksteal \
	  -m "slow and not full and not slurm and not ray and not page"

test-full: .venv/installed-test lint
	$(BIN)/python -m pytest -n $(TEST_JOBS) --dist=worksteal -m "not slurm and not ray and not page"

test-cluster: .venv/installed-test .venv/installed-slurm
	tests/cluster/run_slurm.sh $(BIN)/python

test-ray: .venv/installed-test .venv/installed-ray
	$(BIN)/python -m pytest -m ray tests/cluster

test-page: .venv/installed-test .venv/installed-page
	$(BIN)/python -m pytest -m page -rs tests/tools/page tests/inspection

bench: .venv/installed .venv-torch/installed
	$(BIN)/python -m benchmarks.run $(BENCH)

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Nothing is left of an environment that could not be made: the next call would take it for one.
.venv/bin/python:
	@$(PYTHON) -c '' 2>/dev/null || { echo "$(PYTHON) cannot be run: it is missing, or it is a shim" \
	  "without a Python behind it. Install Python 3.11 or newer, or name one:" \
	  "make train PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer" \
	  "is needed, but $(PYTHON) is older; name one: make train PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make" \
	  "environments. On Debian and Ubuntu: apt install python3-venv, or what belongs to another" \
	  "Python, such as python3.12-venv." >&2; exit 2; }
	$(PYTHON) -m venv .venv || { rm -rf .venv; exit 2; }

.venv/installed: .venv/bin/python requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/installed-test: .venv/installed requirements-test.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-test.txt
	@touch $@

.venv/installed-slurm .venv/installed-ray .venv/installed-page: .venv/installed-%: .venv/installed requirements-%.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-$*.txt
	@touch $@

.venv-torch/installed: .venv/bin/python requirements-bench.txt
	test -x .venv-torch/bin/python || $(BIN)/python -m venv .venv-torch
	.venv-torch/bin/python -m pip install --quiet --disable-pip-version-check $(TORCH_PIP) \
	  -r requirements-bench.txt
	@touch $@

clean:
	rm -rf .venv .venv-torch .pytest_cache .ruff_cache .hypothesis
