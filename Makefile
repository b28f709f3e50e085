# The words that people and CI share. `make help` lists them.
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ARGS ?=
BAG ?=

.PHONY: help setup demo test test-all lint types format bench docs clean
help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): setup.py $(wildcard interfaces/*.* interfaces/*/* interfaces/*/msg/*)
	bash interfaces/setup.sh $(VENV)
	@touch $@

setup: $(READY) ## make .venv, with ROS 2 from PyPI unless one is sourced

demo: $(READY) ## run the nodes on a drive (BAG=path plays yours), report in out/demo
	$(BIN)/spike_depth demo --out out/demo $(if $(BAG),--source '$(BAG)') $(ARGS)

test: $(READY) ## the fast tests
	$(BIN)/python -m pytest $(ARGS)

test-all: $(READY) ## all tests, as CI runs them
	$(BIN)/python -m pytest --slow $(ARGS)

lint: $(READY) ## rules, format and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

types: $(READY) ## mypy
	$(BIN)/mypy

format: $(READY) ## let ruff write the format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) ## speed, as tables: ingest, inference, node, training step
	$(BIN)/spike_depth bench ingest $(ARGS)
	$(BIN)/spike_depth bench infer models/default.safetensors $(ARGS)
	$(BIN)/spike_depth bench node $(ARGS)
	$(BIN)/spike_depth bench train $(ARGS)

docs: export NO_MKDOCS_2_WARNING = 1
docs: $(READY) ## the documentation as pages, in out/docs
	$(BIN)/mkdocs build --quiet

clean: ## remove what was built
	rm -rf $(VENV) build install log out
