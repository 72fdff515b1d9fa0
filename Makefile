# The only commands. Each does its own set-up: .venv from the committed lock, no GPU needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SEED ?= 0
ROWS ?=
export OMP_NUM_THREADS ?= 1
# Runs from the checkout, whatever the caller has installed.
export PYTHONPATH :=
export TOKENIZERS_PARALLELISM = false

.PHONY: setup demo test check format serve bench bench-pairs bench-serve clean

setup: $(VENV)/.locked

$(VENV)/.locked: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed, got `$(PYTHON) --version`; set PYTHON=..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the locked packages into $(VENV) (a few minutes the first time)"
	@$(BIN)/pip install -q --disable-pip-version-check -r requirements.lock
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(BIN)/python -c 'import dreambooth3d, torch, ray, diffusers, mlflow'
	@touch $@

demo: setup
	$(BIN)/python pipelines/demo.py

test: setup
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

serve: setup
	RAY_ADDRESS=$${RAY_ADDRESS:-local} $(BIN)/serve run serve.app:app

prove-%: setup
	$(BIN)/python benchmarks/prove.py $* --seed $(SEED) --rows "$(ROWS)"

bench-pairs: setup
	$(BIN)/python benchmarks/bench_pairs.py --seed $(SEED)

bench-serve: setup
	$(BIN)/python benchmarks/serve_curve.py --seed $(SEED)

bench: setup
	$(BIN)/python benchmarks/bench.py --seed $(SEED) --rows "$(ROWS)"

clean:
	rm -rf runs
