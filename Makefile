# The words that people and CI share. `make help` lists them.
ARGS ?=
BAG ?=
VIEW ?=
RECORD ?=
SECONDS ?= 600
MINUTES ?= 60
# `make ROS_DISTRO=jazzy ...` chooses the ROS 2 that comes from PyPI, in an environment of its own.
# In the environment the same variable belongs to a ROS 2 that is sourced.
WHEELS := $(if $(filter command%,$(origin ROS_DISTRO)),$(ROS_DISTRO))
ifneq ($(and $(WHEELS),$(AMENT_PREFIX_PATH)),)
$(error a ROS 2 is sourced and would be used: leave out ROS_DISTRO=$(WHEELS), or use a shell without it)
endif
VENV := .venv$(addprefix -,$(filter-out kilted,$(WHEELS)))
BIN := $(VENV)/bin
# `make setup EXTRAS=` leaves out what only training, tests and documentation need
CHOSEN := $(filter command% environment%,$(origin EXTRAS))
READY := $(VENV)/.ready$(if $(CHOSEN),-with-$(subst $() ,-,$(EXTRAS)))

.PHONY: fuzz soak help setup demo test test-all test-nodes lint types format parameters bench docs clean
help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): setup.py $(wildcard interfaces/*.* interfaces/*/* interfaces/*/msg/*)
	bash interfaces/setup.sh $(VENV) '$(or $(WHEELS),kilted)' '$(if $(CHOSEN),$(or $(EXTRAS),-))'
	@touch $@

setup: $(READY) ## make .venv (ROS_DISTRO=jazzy: .venv-jazzy), with ROS 2 from PyPI unless one is sourced

demo: $(READY) ## run the nodes on a drive (BAG=path plays yours), report in out/demo; VIEW=1 shows it live, RECORD=1 keeps the outputs as MCAP
	$(BIN)/spike_depth demo --out out/demo $(if $(BAG),--source '$(BAG)') $(if $(VIEW),--view '$(VIEW)') $(if $(RECORD),--record true) $(ARGS)

test: $(READY) ## the fast tests
	$(BIN)/python -m pytest -n 2 $(ARGS)

test-all: $(READY) ## all tests, as CI runs them
	$(BIN)/python -m pytest --slow -n 2 $(ARGS)

test-nodes: $(READY) ## the tests that run nodes, as CI does for ROS_DISTRO=jazzy as well
	$(BIN)/python -m pytest --slow -n 2 $(ARGS) $(shell grep -lE '^(from|import) (graph|rclpy|[a-z_]+_msgs|spike_depth_ros\.ros)\b' test/test_*.py)

lint: $(READY) ## rules, format and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

types: $(READY) ## mypy
	$(BIN)/mypy

format: $(READY) ## let ruff write the format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

parameters: $(READY) ## write config/depth.yaml and the tables of docs/nodes.md anew
	$(BIN)/python -m spike_depth_ros.ros.parameter_pages

bench: $(READY) ## speed, as tables: ingest, inference, node, training step
	$(BIN)/spike_depth bench ingest $(ARGS)
	$(BIN)/spike_depth bench infer models/default.safetensors $(ARGS)
	$(BIN)/spike_depth bench node $(ARGS)
	$(BIN)/spike_depth bench train $(ARGS)

docs: export NO_MKDOCS_2_WARNING = 1
docs: $(READY) ## the documentation as pages, in out/docs
	$(BIN)/mkdocs build --quiet

fuzz: $(READY) ## damaged input for SECONDS: payloads, messages, files
	$(BIN)/python test/fuzz.py --seconds $(SECONDS) $(ARGS)

soak: $(READY) ## the nodes for MINUTES with faults, then a day of events
	$(BIN)/python test/soak.py --minutes $(MINUTES) $(ARGS)

clean: ## remove what was built
	rm -rf .venv .venv-* build install log out
