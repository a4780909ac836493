# make serve and make test need git, make and Python 3.11 or newer, and nothing else.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# what the two stamps hold: the environment for serving, and the one for developing
SERVE  := $(VENV)/serve.stamp
DEV    := $(VENV)/dev.stamp

.PHONY: serve test install install-dev check lint types imports migrations manifests docs bench pipes rehearse-split crash faults partitions races lock clean

## serve: run the hall on http://localhost:8000, with a Postgres of its own
serve: $(SERVE)
	$(BIN)/markethall serve $(ARGS)

## test: all tests, on memory, on a real Postgres and on a real Valkey
test: $(DEV)
	$(BIN)/python -m pytest $(ARGS)

install: $(SERVE)
install-dev: $(DEV)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Markethall needs Python 3.11 or newer; say which by make PYTHON=…"; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo "On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }

$(SERVE): requirements/serve.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(DEV): requirements/dev.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@ $(SERVE)

## check: everything that CI checks besides the tests
check: lint types imports

lint: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/deptry .
	$(BIN)/hadolint Dockerfile

types: $(DEV)
	$(BIN)/mypy

imports: $(DEV)
	$(BIN)/lint-imports

## bench: how fast, as ratios to bare applications (several minutes, a quiet machine)
bench: $(DEV)
	$(BIN)/python -m bench $(ARGS)

## lock: compile requirements/ again (needs uv)
lock:
	scripts/lock.sh

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

## migrations: each context up, compared with its tables, down and up again, on an embedded server
migrations: $(DEV)
	$(BIN)/python -m scripts.check_migrations

## manifests: render the overlays and look at them closely (needs kubectl)
manifests: $(DEV)
	$(BIN)/python -m pytest -q k8s

## docs: write the generated parts of the documents, and the network policies
docs: $(DEV)
	$(BIN)/python -m scripts.generate_network
	$(BIN)/python -m scripts.generate_docs

## partitions: the same suite and the same log on all fifteen partitions, also as real processes
partitions: $(DEV)
	MARKETHALL_TEST_SCOPE=full $(BIN)/python -m pytest -q tests/partitions tests/e2e/test_flow.py $(ARGS)

## crash: kill -9 at every commit of the founding flow, not only at some (several minutes)
crash: $(DEV)
	MARKETHALL_TEST_SCOPE=full $(BIN)/python -m pytest -q -s tests/e2e/test_crash.py $(ARGS)

## faults: everything that can break between four processes, twenty times each (hours)
faults: $(DEV)
	MARKETHALL_TEST_SCOPE=full $(BIN)/python -m pytest -q -s tests/e2e/test_split_faults.py $(ARGS)

## races: a hundred buyers, twenty rounds of each race, with the database 0 and 20 ms away (minutes)
races: $(DEV)
	MARKETHALL_TEST_SCOPE=full $(BIN)/python -m pytest -q tests/inventory/test_races.py tests/inventory/test_store_mutants.py tests/e2e/test_hot_product.py $(ARGS)

## pipes: 2,000 events, two listeners, twenty kill -9 (a minute)
pipes: $(DEV)
	MARKETHALL_TEST_SCOPE=full $(BIN)/python -m pytest -q -s tests/shared/test_event_delivery.py tests/shared/test_redis_streams.py tests/shared/test_redis_stream_kills.py $(ARGS)

## rehearse-split: moving day under a crowd, undisturbed and with a kill -9 in each step (minutes)
rehearse-split: $(DEV)
	MARKETHALL_TEST_SCOPE=full $(BIN)/python -m pytest -q -s tests/e2e/test_relocation.py $(ARGS)
