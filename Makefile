# Soundpost: `make help` lists what there is.
#
#   PYTHON=python3.12 make demo     another interpreter (when .venv does not exist yet)
#   PYTEST_ARGS="-k mqtt" make unit part of the tests

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
# Python 3.11 holds every extra in one environment; without one, whatever python3 is.
PYTHON ?= $(or $(shell .ci/find_python 3.11),python3)
SOUNDPOST_DATA ?= ../shared/data
PYTEST_ARGS ?=
FOLDERS := device firmware_bridge calibration train export

PIP := -m pip install --disable-pip-version-check --constraint constraints.txt
# What an installation depends on: a change here, and only here, installs again.
PINS := pyproject.toml constraints.txt
EVERYTHING := .[device,clips,metrics,tflite,array,updates,train,export,dev]
# What tests/device needs beside the device extra when it is tested alone.
ALONE_TESTS := pytest pytest-timeout pytest-xdist hypothesis jsonschema trustme pyte jinja2
JUNIT := build/junit
# Most tests wait for a process, a broker or a sound server: several files at once, also on two cores.
TEST_JOBS ?= 4
PYTEST := -m pytest -n $(TEST_JOBS) --dist loadfile $(PYTEST_ARGS)

.PHONY: help
help:
	@echo 'make demo        install the device extra into .venv, play a soundscape, print the alerts'
	@echo 'make test        install everything; format, lint, types, import rules and all tests'
	@echo 'make test-data   tests on real audio, from SOUNDPOST_DATA ($(SOUNDPOST_DATA))'
	@echo 'make test-arm    device tests and a replay in an arm64 Debian under emulation (root)'
	@echo 'make bench       print what is measured, not asserted (tests/benchmarks)'
	@echo 'make size        print what the device extra occupies when installed'
	@echo 'make format      format the code and fix what ruff can'
	@echo 'make clean       remove the environments and everything that was built'
	@echo 'Parts of make test: make lint types imports unit alone'

# ------------------------------------------------------------------------------ environments

$(VENV)/.made:
	@"$(PYTHON)" device/platform_check.py
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo 'python3-venv is missing: sudo apt-get install python3-venv' >&2; exit 1; }
	@"$(PYTHON)" -m venv $(VENV)
	@touch $@

# --quiet hides pip's thousand lines, not its errors.
$(VENV)/.device: $(PINS) | $(VENV)/.made
	@echo 'Installing the device extra into $(VENV) (about 100 MB to download) ...'
	@$(BIN)/python $(PIP) --quiet --editable '.[device]'
	@touch $@

$(VENV)/.everything: $(PINS) | $(VENV)/.made
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then \
	  echo 'Installing everything into $(VENV) (about 1.5 GB to download) ...'; \
	  $(BIN)/python $(PIP) --quiet --editable '$(EVERYTHING)'; \
	  echo full > $(VENV)/.holds; \
	else \
	  echo 'No Python 3.11 here, which tflite-runtime and onnx2tf need: installing the device and dev extras, testing the device only.'; \
	  $(BIN)/python $(PIP) --quiet --editable '.[device,clips,metrics,updates,dev]'; \
	  echo device > $(VENV)/.holds; \
	fi
	@touch $(VENV)/.device $@

# The device extra alone, on other Pythons. Make would remove the marks, made on the way to something
# else, and then install again every time.
.SECONDARY: .venv-3.10/.device .venv-3.13/.device
.venv-%/.device: $(PINS)
	@python=$$(.ci/find_python $*); "$$python" device/platform_check.py; \
	  "$$python" -m venv .venv-$*
	@echo 'Installing the device extra alone into .venv-$* ...'
	@.venv-$*/bin/python $(PIP) --quiet --editable '.[device,clips,metrics,updates]' $(ALONE_TESTS)
	@touch $@

# ------------------------------------------------------------------------------------- demo

.PHONY: demo
demo: $(VENV)/.device
	@$(BIN)/soundpost demo

# ------------------------------------------------------------------------------------- test

.PHONY: test lint types imports unit alone format
test: $(VENV)/.everything
	@$(MAKE) --no-print-directory lint
	@if [ "$$(cat $(VENV)/.holds)" = full ]; then \
	  $(MAKE) --no-print-directory types imports; fi
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory alone
	@echo 'make test: everything that ran passed'

lint: $(VENV)/.everything
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: $(VENV)/.everything
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# mypy cannot follow the editable install's import hook, and grimp needs `soundpost` on the path:
# both read the folders through links under their package's name.
build/lint/soundpost:
	@mkdir -p $@
	@for folder in $(FOLDERS); do ln -sfn ../../../$$folder $@/$$folder; done

types: $(VENV)/.everything build/lint/soundpost
	MYPYPATH=build/lint $(BIN)/mypy --package soundpost

imports: $(VENV)/.everything build/lint/soundpost
	@mkdir -p build
	@PYTHONPATH=build/lint $(BIN)/lint-imports --no-cache > build/import-rules.txt || \
	  { cat build/import-rules.txt; exit 1; }
	@tail -n 2 build/import-rules.txt

unit: $(VENV)/.everything
	$(BIN)/python $(PYTEST) --junitxml=$(JUNIT)/unit.xml \
	  $$([ "$$(cat $(VENV)/.holds)" = full ] || echo --device-only tests/device)

alone:
	@for version in 3.10 3.13; do \
	  if [ -n "$$(.ci/find_python $$version)" ]; then \
	    $(MAKE) --no-print-directory alone-$$version; \
	  else \
	    echo "Python $$version is not on this machine: the device extra alone was not tested on it"; \
	  fi; \
	done

alone-%: .venv-%/.device
	.venv-$*/bin/python $(PYTEST) --junitxml=$(JUNIT)/alone-$*.xml --device-only tests/device

.PHONY: test-data test-arm bench size
test-data: $(VENV)/.everything
	SOUNDPOST_DATA='$(abspath $(SOUNDPOST_DATA))' \
	  $(BIN)/python $(PYTEST) -m data --junitxml=$(JUNIT)/data.xml

test-arm: $(VENV)/.everything
	@tests/arm/run $(BIN)/python

# One after the other: on a busy machine they measure the business.
BENCHMARKS := front_end inference levels daemon_memory daemon_cpu demo_latency outbox_drain hotplug clock_drift \
  acoustic_images key_frames media_cache rtp_receiver rtp_fuzz rtp_sender
bench: $(VENV)/.everything
	@for name in $(BENCHMARKS); do \
	  echo "== $$name"; $(BIN)/python tests/benchmarks/$$name.py; \
	done
	@if [ -d '$(SOUNDPOST_DATA)/esc50' ]; then \
	  echo '== alarms'; \
	  $(BIN)/python tests/benchmarks/alarms.py --data '$(SOUNDPOST_DATA)/esc50' --fold 5; \
	  echo '== privacy'; \
	  $(BIN)/python tests/benchmarks/privacy.py --data '$(SOUNDPOST_DATA)'; \
	else \
	  echo 'no real audio at $(SOUNDPOST_DATA)/esc50: the benchmarks of alarms and privacy were left out'; \
	fi

size:
	@"$(PYTHON)" tests/benchmarks/installed_size.py

.PHONY: clean
clean:
	rm -rf .venv .venv-3.* build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache \
	  .hypothesis .import_linter_cache
	find $(FOLDERS) tests -name __pycache__ -type d -prune -exec rm -rf {} +
