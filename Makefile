# make demo   sees a feature disappear from a generator, on this machine, with one command
# make test   runs everything that needs no GPU
# make help   lists the rest
#
# Each verb installs what is missing first: Debian packages as root or through sudo, libtorch into .venv.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
CARGO ?= cargo
JOB ?= thick-vae
SLOTS ?= 2
SECONDS ?= 60
SEED ?= 1

VENV := .venv/bin
BIN := target/release
STAMPS := .stamps
# As the agent counts: what the driver lists, or its device files where /proc shows no list.
GPU := $(shell ls -d /proc/driver/nvidia/gpus/* /dev/nvidia[0-9]* 2>/dev/null | grep -q . && echo yes || echo no)

.PHONY: help
help: ## list the verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

.PHONY: demo
demo: build ## remove thick strokes from a VAE (JOB=thick-dcgan, slant-vae, slant-dcgan, digit-dcgan)
	$(BIN)/lethe run examples/mnist/$(JOB).yaml --out lethe-out/$(JOB) --slots $(SLOTS) --fresh
	@$(VENV)/python examples/mnist/check.py lethe-out/$(JOB)/result.json 0.10
	@echo "look at lethe-out/$(JOB)/before_after.png"

.PHONY: demo-faces
demo-faces: build $(STAMPS)/faces ## remove the smile from a face GAN that nobody here trained; fetches it first, 45 MB
	$(BIN)/lethe run examples/faces/smile.yaml --out lethe-out/smile --slots $(SLOTS) --fresh
	@echo "look at lethe-out/smile/before_after.png"

.PHONY: build
build: $(STAMPS)/system $(STAMPS)/libtorch ## build everything in release
	$(CARGO) build --release --locked --workspace --bins

# ---- what has to be there -------------------------------------------------------------------------------------------
# Python packages by version and digest: tools/setup/NAME.txt, which tools/setup/lock.sh makes of NAME.in.

$(STAMPS)/system: tools/setup/system.sh tools/setup/debian-build.txt
	@mkdir -p $(STAMPS)
	tools/setup/system.sh tools/setup/debian-build.txt
	@touch $@

$(STAMPS)/system-test: tools/setup/system.sh tools/setup/debian-test.txt
	@mkdir -p $(STAMPS)
	tools/setup/system.sh tools/setup/debian-test.txt
	@touch $@

$(STAMPS)/libtorch: tools/setup/libtorch-cpu.txt tools/setup/nccl-headers.txt
	@mkdir -p $(STAMPS)
	test -x $(VENV)/python || $(PYTHON) -m venv .venv
ifeq ($(GPU),yes)
	$(VENV)/pip install --quiet torch==2.11.0
else
	$(VENV)/pip install --quiet --no-deps -r tools/setup/libtorch-cpu.txt
endif
	$(VENV)/pip install --quiet --no-deps -r tools/setup/nccl-headers.txt
	ln -sfn $$(echo .venv/lib/python3*/site-packages/torch) .libtorch
	test -e .libtorch/lib/libtorch_cpu.so
	@touch $@

$(STAMPS)/npm: tools/setup/system.sh tools/setup/debian-npm.txt
	@mkdir -p $(STAMPS)
	command -v npm >/dev/null || tools/setup/system.sh tools/setup/debian-npm.txt
	@touch $@

$(STAMPS)/buf: $(STAMPS)/libtorch $(STAMPS)/npm tools/setup/buf.sh
	tools/setup/buf.sh .venv
	@touch $@

.PHONY: export-deps
export-deps: $(STAMPS)/export ## what tools/export needs: PyTorch for Python (without a GPU 2 GB), safetensors

# pip complains that a torch installed with --no-deps lacks what is left out on purpose.
QUIETLY := 2> >(grep -v -E 'dependency resolver|^torch 2' >&2)

$(STAMPS)/export: $(STAMPS)/libtorch tools/setup/export.txt tools/setup/torch-python.txt
ifneq ($(GPU),yes)
	$(VENV)/pip install --quiet --no-deps -r tools/setup/torch-python.txt
endif
	$(VENV)/pip install --quiet -r tools/setup/export.txt $(QUIETLY)
	$(VENV)/python -c 'import torch, safetensors.torch'
	@touch $@

$(STAMPS)/python: $(STAMPS)/export tools/setup/kubectl.sh tools/setup/python.txt
	$(VENV)/pip install --quiet -r tools/setup/python.txt $(QUIETLY)
	tools/setup/kubectl.sh .venv
	@touch $@

$(STAMPS)/faces-needs: $(STAMPS)/export $(STAMPS)/npm tools/setup/faces.txt
	$(VENV)/pip install --quiet -r tools/setup/faces.txt $(QUIETLY)
	@touch $@

$(STAMPS)/faces: $(STAMPS)/faces-needs $(wildcard examples/faces/*.py)
	$(VENV)/python examples/faces/fetch.py
	$(VENV)/python examples/faces/convert.py
	@touch $@

# ---- tests ----------------------------------------------------------------------------------------------------------

# Tests that this machine cannot run write a line each here; `make test` ends with them.
export LETHE_SKIPS := $(CURDIR)/target/skips.txt

.PHONY: test
test: ## run everything that needs no GPU
	@mkdir -p target && rm -f $(LETHE_SKIPS)
	$(MAKE) --no-print-directory lint test-rust test-python
	@tests/skips.sh

.PHONY: test-rust
test-rust: build $(STAMPS)/system-test $(STAMPS)/python
	$(CARGO) nextest --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-nextest
	PATH="$(CURDIR)/$(VENV):$$PATH" $(CARGO) nextest run --release --locked --workspace

.PHONY: test-python
test-python: build $(STAMPS)/system-test $(STAMPS)/python $(STAMPS)/faces-needs
	@mkdir -p target
	PATH="$(CURDIR)/$(VENV):$$PATH" $(VENV)/python -m pytest -q -rs -p no:cacheprovider tools examples deploy tests/gpu tests/bench tests/tidy | tee target/pytest.txt
	@sed -n 's/^SKIPPED \[[0-9]*\]/SKIPPED/p' target/pytest.txt >>$(LETHE_SKIPS)

.PHONY: lint
lint: $(STAMPS)/system $(STAMPS)/libtorch $(STAMPS)/buf ## formatting, clippy, and the style of the .proto files
	$(CARGO) fmt --all --check
	$(VENV)/buf lint proto
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings

.PHONY: gpu-kit
gpu-kit: build ## pack what test-gpu needs into gpu-kit.tar.gz, to be carried to a machine with a GPU
	tests/gpu/pack.sh

.PHONY: test-gpu
test-gpu: ## what needs a GPU, from gpu-kit/ and a python3 that has torch 2.11 (see docs/gpu.md)
	tests/gpu/run.sh

# ---- measurements ---------------------------------------------------------------------------------------------------

.PHONY: bench-train
bench-train: build $(STAMPS)/python ## fine-tuning beside PyTorch DDP under torchrun, one JSON line each
	$(VENV)/python tests/bench/train.py

.PHONY: bench-sample
bench-sample: build $(STAMPS)/python ## sample and classify beside a plain PyTorch loop
	$(VENV)/python tests/bench/sample.py

$(STAMPS)/bench: $(STAMPS)/python $(STAMPS)/system-test tools/setup/bench.txt
	$(VENV)/pip install --quiet -r tools/setup/bench.txt
	@touch $@

.PHONY: bench-fleet
bench-fleet: build $(STAMPS)/bench ## leases, scale, recovery, fail-over and checkpoints, beside HyperQueue, Ray and torchrun
	$(VENV)/python tests/bench/fleet.py

.PHONY: bench-scale
bench-scale: build $(STAMPS)/system-test ## takeover of a store with a long history, and load, one JSON line each
	$(BIN)/lethe-bench-scale takeover
	$(BIN)/lethe-bench-scale load

.PHONY: chaos
chaos: build $(STAMPS)/python $(STAMPS)/system-test ## random faults for SECONDS=60, chosen by SEED=1
	$(BIN)/lethe-chaos --seconds $(SECONDS) --seed $(SEED)

.PHONY: table
table: build $(STAMPS)/python ## every example job at 3 seeds, the paper's rule beside ours: docs/results.md
	$(VENV)/python tests/bench/table.py

.PHONY: clean
clean: ## forget builds and results; keep .venv
	rm -rf target lethe-out
